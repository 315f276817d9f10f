"""`ingle.testing.server`, as somebody's tests use it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ingle import testing
from ingle.v1 import guest_pb2, system_pb2, vm_pb2
from ingle.v1.guest_pb2_grpc import GuestServiceStub
from ingle.v1.system_pb2_grpc import SystemServiceStub
from ingle.v1.vm_pb2_grpc import VmServiceStub

_GONE_SECONDS = 20.0
_STUBBORN = "trap '' TERM HUP; (trap '' TERM HUP; while :; do sleep 1000; done) & while :; do sleep 1000; done"


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    with testing.server() as socket, grpc.insecure_channel(f"unix:{socket}") as channel:
        yield channel


def create(channel: grpc.Channel) -> str:
    vm = VmServiceStub(channel).CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec())).vm
    assert vm.state == vm_pb2.VM_STATE_RUNNING
    return vm.id


def group_of(channel: grpc.Channel, vm: str) -> int:
    """One of processes that nothing polite ends."""
    start = guest_pb2.ExecStart(vm=vm, argv=["sh", "-c", _STUBBORN], detach=True)
    (response,) = GuestServiceStub(channel).Exec(iter([guest_pb2.ExecRequest(start=start)]))
    pid = response.started.pid
    while len(members(pid)) < 4:
        time.sleep(0.01)
    return pid


def members(group: int) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, fields = entry.read_text().rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields.split()[2]) == group:
            found.append(entry.parent.name)
    return found


def gone(group: int) -> bool:
    """Within a while."""
    deadline = time.monotonic() + _GONE_SECONDS
    while members(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_vm_that_asks_for_nothing_is_there_and_works(channel: grpc.Channel) -> None:
    start = guest_pb2.ExecStart(vm=create(channel), argv=["sh", "-c", "cat; exit 3"])
    ran = GuestServiceStub(channel).Run(guest_pb2.RunRequest(start=start, stdin_data=b"hello"))
    assert (ran.stdout_data, ran.exited.exit_code) == (b"hello", 3)


def test_commands_are_given_the_variables_of_their_vm(channel: grpc.Channel) -> None:
    spec = vm_pb2.VmSpec(env={"STAGE": "a test", "LINES": "one\ntwo=2"})
    vm = VmServiceStub(channel).CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sh", "-c", 'printf %s "$STAGE/$LINES/$MINE"'], env={"MINE": "own"})
    ran = GuestServiceStub(channel).Run(guest_pb2.RunRequest(start=start))
    assert ran.stdout_data == b"a test/one\ntwo=2/own"


def test_it_needs_no_machine(channel: grpc.Channel) -> None:
    (engine,) = SystemServiceStub(channel).GetInfo(system_pb2.GetInfoRequest()).engines
    assert (engine.name, engine.problem) == ("fake", "")


@pytest.mark.parametrize("verb", ["StopVm", "KillVm", "DeleteVm"])
def test_processes_of_a_guest_end_with_it(channel: grpc.Channel, verb: str) -> None:
    vm = create(channel)
    group = group_of(channel, vm)
    request = (
        vm_pb2.DeleteVmRequest(vm=vm, force=True) if verb == "DeleteVm" else getattr(vm_pb2, f"{verb}Request")(vm=vm)
    )
    getattr(VmServiceStub(channel), verb)(request)
    assert gone(group)


def test_nothing_is_left_of_a_server_whose_test_fails() -> None:
    seen: list[tuple[Path, int]] = []

    def fail() -> None:
        with testing.server() as socket, grpc.insecure_channel(f"unix:{socket}") as channel:
            seen.append((socket, group_of(channel, create(channel))))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    ((socket, group),) = seen
    assert gone(group)
    assert not socket.parents[2].exists()


def test_what_the_caller_has_configured_is_nothing_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_MEMORY", "nonsense")
    with testing.server() as socket, grpc.insecure_channel(f"unix:{socket}") as channel:
        SystemServiceStub(channel).Ping(system_pb2.PingRequest())


_A_TEST = """
import sys, time
import grpc
from ingle import testing
from ingle.v1 import vm_pb2, vm_pb2_grpc
with testing.server() as socket, grpc.insecure_channel(f"unix:{socket}") as channel:
    vm = vm_pb2_grpc.VmServiceStub(channel).CreateVm(vm_pb2.CreateVmRequest()).vm
    print(socket, vm.pid, flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_server_whose_test_is_killed(number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    test = subprocess.Popen(
        [sys.executable, "-c", _A_TEST], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert test.stdout is not None
    socket, pid = test.stdout.readline().split()
    directory = Path(socket).parents[2]
    assert (directory / "server.log").exists()
    test.send_signal(number)
    assert test.wait(_GONE_SECONDS) != 0
    deadline = time.monotonic() + _GONE_SECONDS
    while directory.exists() or Path("/proc", pid).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
