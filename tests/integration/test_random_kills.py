"""Verbs at random with a real guest, and SIGKILLs of the server or of a VMM at any instant of them: from whatever is
left a verb leads on, memory never meets a disk of another time, file systems are whole, and nothing is left behind.

A guest has a number on its disk and the same in its memory: one that goes on has both, one that has booted that of the
disk alone, and no guest ever has two that differ."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from engine_contract.disks import disk_of
from harness import NewServer, Server, nothing_left, refusal
from ingle.v1 import operation_pb2, snapshot_pb2, vm_pb2

FEW = 12
LONGEST_DELAY_SECONDS = 1.2
SETTLED_SECONDS = 120.0
FINE = {
    "WRONG_STATE",
    "VM_ENDED",
    "VMM_FAILED",
    "GUEST_UNREACHABLE",
    "NAME_TAKEN",
    "SNAPSHOT_NOT_FOUND",
    "VM_NOT_FOUND",
}
"""How a verb may be refused, or tell that what it was about was killed."""

Verb = Callable[[Server], object]
VERBS: Mapping[str, Verb] = {
    "create": lambda server: server.vms.CreateVm(vm_pb2.CreateVmRequest()),
    "pause": lambda server: server.vms.PauseVm(vm_pb2.PauseVmRequest(vm="web")),
    "hibernate": lambda server: server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm="web")),
    "wake": lambda server: server.vms.WakeVm(vm_pb2.WakeVmRequest(vm="web")),
    "keep": lambda server: server.snapshots.CreateSnapshot(snapshot_pb2.CreateSnapshotRequest(vm="web", name="kept")),
    "put back": lambda server: server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="kept")),
    "forget": lambda server: server.snapshots.DeleteSnapshot(snapshot_pb2.DeleteSnapshotRequest(snapshot="kept")),
    "fork": lambda server: server.vms.ForkVm(vm_pb2.ForkVmRequest(vm="web", count=2)),
    "restart": lambda server: server.vms.RestartVm(vm_pb2.RestartVmRequest(vm="web")),
    "stop": lambda server: server.vms.StopVm(vm_pb2.StopVmRequest(vm="web")),
}


READ = """
on_disk=$(cat /root/number)
echo "$on_disk $(cat /run/number || echo "$on_disk")"
dmesg | grep "EXT4.*error"
"""


class Guests:
    """What the VM `web`, and what was made of it, may have on their disks."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.number = ""
        """What `web` had last."""
        self.kept: dict[str, set[str]] = {}
        """What a snapshot may have, by id."""

    def write(self, number: str) -> None:
        """A new one, on the disk before it is in memory."""
        script = f"echo {number} > /root/number && sync && echo {number} > /run/number"
        code, _, err = self.server.run("web", "sh", "-c", script)
        assert code == 0, err
        self.number = number

    def read(self, vm: str) -> str:
        """What is on the disk of one that runs."""
        numbers, _, errors = self.server.run(vm, "sh", "-c", READ)[1].decode().partition("\n")
        on_disk, _, in_memory = numbers.partition(" ")
        assert in_memory == on_disk, f"{vm}: memory of {in_memory!r}, and a disk of {on_disk!r}"
        assert errors == ""
        return on_disk

    def check(self) -> None:
        """Each VM is led to where it runs, and has what it may; snapshots are whole."""
        settled(self.server)
        snapshots = {each.id: each.state for each in self.server.snapshot_list()}
        assert set(snapshots.values()) <= {snapshot_pb2.SNAPSHOT_STATE_READY}
        may_have = {self.number}.union(*self.kept.values())
        self.kept = {snapshot_id: self.kept.get(snapshot_id, may_have) for snapshot_id in snapshots}
        for vm in self.server.list():
            started = start(self.server, vm.id)
            assert started.state == vm_pb2.VM_STATE_RUNNING
            number = self.read(vm.id)
            if vm.name == "web":
                assert number in may_have
                self.number = number
            else:
                assert number in {*may_have, ""}
                self.server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def start(server: Server, vm: str) -> vm_pb2.Vm:
    """A busy host may be too slow for a guest that boots, which is no dead end: the same verb leads on."""
    for _ in range(2):
        try:
            return server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm)).vm
        except grpc.RpcError as error:
            if refusal(error).reason != "GUEST_UNREACHABLE":
                raise
    return server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm)).vm


def attempt(server: Server, verb: str) -> None:
    try:
        VERBS[verb](server)
    except grpc.RpcError as error:
        if error.trailing_metadata():  # the server itself always says why
            told = refusal(error)
            assert told.reason in FINE, (verb, told)


def kill_amid(server: Server, verb: str, victim: str, delay_seconds: float) -> None:
    """Kill the server or a VMM so long after the verb has begun."""
    working = threading.Thread(target=attempt, args=(server, verb))
    working.start()
    time.sleep(delay_seconds)
    if victim == "server":
        assert server.process is not None
        server.process.send_signal(signal.SIGKILL)
    else:
        for pid, line in server.vmm_processes().items():
            if "qemu-system" in line or "/firecracker" in line:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                break
    working.join()
    if victim == "server":
        assert server.process is not None
        server.process.wait(30)
        server.start()


def settled(server: Server) -> None:
    """Wait until nothing is being done: a guest that was to boot again does, say."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        request = operation_pb2.ListOperationsRequest(page_size=20)
        running = operation_pb2.OPERATION_STATE_RUNNING
        if not [each for each in server.operations.ListOperations(request).operations if each.state == running]:
            return
        assert time.monotonic() < deadline, server.said()
        time.sleep(0.05)


@pytest.fixture
def moves(request: pytest.FixtureRequest) -> int:
    """How many verbs. There is a kill amid every fourth; where they are few, amid every second."""
    return 200 if request.config.getoption("--slow") else FEW


@pytest.mark.timeout(0)
def test_whatever_is_killed_amid_whatever_a_verb_leads_on_and_no_memory_meets_another_disk(
    new_server: NewServer, moves: int, tmp_path: Path
) -> None:
    seed = random.SystemRandom().getrandbits(32) if moves > FEW else FEW
    print(f"seed {seed}")  # noqa: T201 - told with what fails
    chance = random.Random(seed)
    server = new_server()
    server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="web")))
    guests = Guests(server)
    for move in range(moves):
        guests.write(str(move))
        attempt(server, chance.choice(sorted(VERBS)))
        if move % (4 if moves > FEW else 2) == 0:
            verb, victim = chance.choice(sorted(VERBS)), chance.choice(("server", "server", "VMM"))
            delay = chance.uniform(0, LONGEST_DELAY_SECONDS)
            print(f"{move}: the {victim} is killed {delay:.3f} s amid {verb}")  # noqa: T201
            kill_amid(server, verb, victim, delay)
        guests.check()
    server.vms.StopVm(vm_pb2.StopVmRequest(vm="web"))
    (web,) = server.list()
    (disk,) = (server.state / "vms" / web.id).glob("disk.*")
    if disk.suffix == ".qcow2":
        assert subprocess.run(["qemu-img", "check", "-q", disk], check=False).returncode == 0
    with disk_of(server, web, tmp_path) as raw:
        assert subprocess.run(["e2fsck", "-fn", raw], check=False, capture_output=True).returncode == 0
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="web"))
    for snapshot in server.snapshot_list():
        server.snapshots.DeleteSnapshot(snapshot_pb2.DeleteSnapshotRequest(snapshot=snapshot.id))
    nothing_left(server)
