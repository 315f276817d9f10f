"""A system's server, and two members of its group: one tries to have all of it, the other goes on working.

    python -m integration.hostile_members PREPARED

Runs in namespaces of its own, without systemd. Prints as JSON how long the other's calls took during each attack, in
seconds; a call of theirs that fails is an AssertionError.
"""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import refusal
from ingle.v1 import image_pb2, image_pb2_grpc, system_pb2, system_pb2_grpc, vm_pb2, vm_pb2_grpc
from integration.system_in_namespaces import HELPER, SERVER, Service, prepare

GROUP, HOSTILE, HONEST = 23457, 30001, 30002
SOCKET, STATE = "/run/ingle/api.sock", "/var/lib"
CALLS, CONNECTIONS, BEGUN = 10_000, 4000, 500
ROOM, KEPT = 300 << 20, 160 << 20
WORK_SECONDS = 4.0
DEADLINE_SECONDS = 60.0
SETTLED_SECONDS = 30.0


def _channel() -> grpc.Channel:
    return grpc.insecure_channel(f"unix:{SOCKET}", options=(("grpc.use_local_subchannel_pool", 1),))


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _stay() -> None:
    sys.stdin.read()


def _end(error: Any) -> str:
    """The reason, or the code where there is none."""
    details = dict(error.trailing_metadata() or ())
    return refusal(error).reason if "grpc-status-details-bin" in details else str(error.code().name)


# -- what the honest one does


def work() -> None:
    """Calls on a connection that lasts and on new ones, one after the other. Says how long each took."""
    took = []
    until = time.monotonic() + WORK_SECONDS
    with _channel() as lasting:
        while time.monotonic() < until:
            for channel in (lasting, _channel()):
                began = time.perf_counter()
                vm_pb2_grpc.VmServiceStub(channel).ListVms(vm_pb2.ListVmsRequest(), timeout=DEADLINE_SECONDS)
                took.append(time.perf_counter() - began)
                if channel is not lasting:
                    channel.close()
            time.sleep(0.02)
    took.sort()
    _say({"calls": len(took), "p50": round(took[len(took) // 2], 4), "most": round(took[-1], 4)})


# -- what the hostile one does: it says "now" once it is at it


def hold_connections() -> None:
    """As many as there can be, in which nothing is said."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    held = []
    for _ in range(min(CONNECTIONS, most - 100)):
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(SOCKET)
        held.append(caller)
    with _channel() as channel:
        ping = system_pb2_grpc.SystemServiceStub(channel).Ping.future(system_pb2.PingRequest())
        # It is one too many: told, or closed without a word while others are told.
        assert _end(ping.exception(DEADLINE_SECONDS)) in {"TOO_MANY_CALLS", "UNAVAILABLE"}
    _say("now")
    _stay()


def flood(connections: int) -> None:
    """Calls at once, and again as soon as they are over."""
    channels = [_channel() for _ in range(connections)]
    told = False
    while True:
        ends: Counter[str] = Counter()
        stubs = [vm_pb2_grpc.VmServiceStub(channel) for channel in channels]
        calls = [stubs[n % connections].GetVm.future(vm_pb2.GetVmRequest(vm="x")) for n in range(CALLS)]
        if not told:
            _say("now")
            told = True
        for call in calls:
            ends[_end(call.exception())] += 1
        if connections == 1:
            assert ends == {"VM_NOT_FOUND": CALLS}, ends  # they waited at the client
        else:
            assert ends["VM_NOT_FOUND"] >= 1, ends


def watch() -> None:
    """Calls without end."""
    stubs: list[Any] = [health_pb2_grpc.HealthStub(_channel()) for _ in range(8)]
    watching = [stubs[n % 8].Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS) for n in range(2000)]
    ends: Counter[str] = Counter()
    for each in watching:
        try:
            next(each)
        except grpc.RpcError as error:
            ends[_end(error)] += 1
    assert ends == {"TOO_MANY_CALLS": len(watching) - 1000}, ends
    _say("now")
    _stay()


def begin() -> None:
    """Operations at once."""
    with _channel() as channel:
        vms = vm_pb2_grpc.VmServiceStub(channel)
        spec = [vm_pb2.VmSpec(name=f"much-{n}") for n in range(BEGUN)]
        begun = [vms.BeginCreateVm.future(vm_pb2.BeginCreateVmRequest(spec=each, no_start=True)) for each in spec]
        _say("now")
        for call in begun:
            call.result(DEADLINE_SECONDS)
        ended: list[Any] = [vms.KillVm.future(vm_pb2.KillVmRequest(vm=each.name)) for each in spec]
        ended += [vms.DeleteVm.future(vm_pb2.DeleteVmRequest(vm=each.name)) for each in spec]
        for end in ended:
            end.exception(DEADLINE_SECONDS)
    _stay()


def upload() -> None:
    """Images without end, one after the other."""
    said = False

    def image() -> Iterator[image_pb2.RegisterImageRequest]:
        nonlocal said
        yield image_pb2.RegisterImageRequest(start=image_pb2.RegisterImageStart(name="much"))
        while True:
            yield image_pb2.RegisterImageRequest(data=bytes(1 << 20))
            if not said:
                _say("now")
            said = True

    with _channel() as channel:
        stub = image_pb2_grpc.ImageServiceStub(channel)
        while True:
            ended = stub.RegisterImage.future(image(), timeout=DEADLINE_SECONDS).exception()
            assert _end(ended) == "DISK_FULL", ended


# -- both


def _as(uid: int, what: Callable[..., None], *arguments: object) -> "subprocess.Popen[str]":
    code = (
        f"import os, sys; sys.path[:0] = {sys.path!r}\n"
        f"from integration import hostile_members\n"
        f"os.setgroups([{GROUP}]); os.setgid({uid}); os.setuid({uid})\n"
        f"hostile_members.{what.__name__}(*{arguments!r})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )


def _heard(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"it ended with {process.wait()}\n{Path('/run/log').read_text()[-4000:]}"
    return json.loads(line)


def during(attack: Callable[..., None] | None, *arguments: object) -> dict[str, Any]:
    """How the honest one fares meanwhile."""
    attacker = _as(HOSTILE, attack, *arguments) if attack is not None else None
    try:
        if attacker is not None:
            assert _heard(attacker) == "now"
        honest = _as(HONEST, work)
        said: dict[str, Any] = _heard(honest)
        assert honest.wait(DEADLINE_SECONDS) == 0
        assert attacker is None or attacker.poll() is None
    finally:
        if attacker is not None:
            attacker.kill()
            attacker.wait()
    return said


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _free() -> int:
    facts = os.statvfs(STATE)
    return facts.f_bavail * facts.f_frsize


def main(prepared: Path) -> None:
    prepare(prepared)
    facts = os.statvfs(STATE)
    most = (facts.f_blocks - facts.f_bfree) * facts.f_frsize + ROOM
    subprocess.run(["mount", "-o", f"remount,size={most}", STATE], check=True)
    as_member: Sequence[str] = ("setpriv", "--regid", str(GROUP), "--clear-groups", sys.executable, "-m")
    services = [Service("/run/ingle-helper/helper.sock", HELPER), Service(SOCKET, SERVER, as_member)]
    for service in services:
        service.wait_until_up()
    pid = services[1].process.pid
    said = {"nothing": during(None)}
    before, free = _descriptors(pid), _free()
    for name, attack, *arguments in (
        ("connections", hold_connections),
        ("calls on one connection", flood, 1),
        ("calls on many connections", flood, 64),
        ("calls without end", watch),
        ("operations", begin),
        ("uploads", upload),
    ):
        said[name] = during(attack, *arguments)
        deadline = time.monotonic() + SETTLED_SECONDS
        # Beside a server of gRPC's for one more user, and what the store has of operations and VMs.
        while _descriptors(pid) > before + 3 or _free() < free - KEPT:
            assert time.monotonic() < deadline, (os.listdir(f"/proc/{pid}/fd"), _free() - free)
            time.sleep(0.1)
    for service in reversed(services):
        service.process.terminate()
        assert service.process.wait(DEADLINE_SECONDS) == 0
    _say(said)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
