"""Random verbs, kills of the server in the middle of them, of the next one while it recovers, and of VMMs: whatever
comes, no VM is in a dead end, nothing is left behind, and every disk is to the byte one that it may be."""

import hashlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from threading import Thread
from typing import TypeVar, cast

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from contract.doomed import SPEC, WITH_PROCESS, DoomedServer, all_is_in_order, doomed_server, state
from harness import Server, nothing_left, refusal
from ingle.api_server.host import block_delta
from ingle.api_server.host.block_delta import Stack
from ingle.api_server.host.threads import Stop
from ingle.v1 import snapshot_pb2, vm_pb2

MOVES_EACH = 25
NOTICED_SECONDS = 30.0
MOST_VMS = 5
KEPT = "kept"

Verb = Callable[[Server, str], object]
Move = TypeVar("Move", bound=Callable[..., object])
VERBS: Mapping[str, Verb] = {
    "start": lambda server, vm: server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm)),
    "stop": lambda server, vm: server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm)),
    "restart": lambda server, vm: server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm)),
    "kill": lambda server, vm: server.vms.KillVm(vm_pb2.KillVmRequest(vm=vm)),
    "pause": lambda server, vm: server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm)),
    "resume": lambda server, vm: server.vms.ResumeVm(vm_pb2.ResumeVmRequest(vm=vm)),
    "hibernate": lambda server, vm: server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm)),
    "wake": lambda server, vm: server.vms.WakeVm(vm_pb2.WakeVmRequest(vm=vm)),
    "keep": lambda server, vm: server.snapshots.CreateSnapshot(
        snapshot_pb2.CreateSnapshotRequest(vm=vm, name=f"{KEPT}-{vm}")
    ),
    "put back": lambda server, vm: server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm=vm, snapshot=f"{KEPT}-{vm}")),
    "forget": lambda server, vm: server.snapshots.DeleteSnapshot(
        snapshot_pb2.DeleteSnapshotRequest(snapshot=f"{KEPT}-{vm}")
    ),
    "flatten": lambda server, vm: server.snapshots.FlattenSnapshot(
        snapshot_pb2.FlattenSnapshotRequest(snapshot=f"{KEPT}-{vm}")
    ),
    "fork": lambda server, vm: server.vms.ForkVm(vm_pb2.ForkVmRequest(vm=vm, count=2)),
    "use": lambda server, vm: server.run(vm, "true"),
    "change": lambda server, vm: server.vms.UpdateVm(
        vm_pb2.UpdateVmRequest(
            vm=vm, spec=vm_pb2.VmSpec(memory_bytes=2**29), update_mask=FieldMask(paths=["memory_bytes"])
        )
    ),
    "change restarting": lambda server, vm: server.vms.UpdateVm(
        vm_pb2.UpdateVmRequest(vm=vm, spec=vm_pb2.VmSpec(vcpus=2), update_mask=FieldMask(paths=["vcpus"]), restart=True)
    ),
    "delete": lambda server, vm: server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm, force=True)),
}
FINE = {"WRONG_STATE", "VM_ENDED", "OPERATION_CANCELLED", "NAME_TAKEN", "SNAPSHOT_NOT_FOUND", "VM_NOT_FOUND", "IN_USE"}
"""How a verb may be refused, or be overtaken by another. A VM is kept once, and not before that put back."""

verbs = st.sampled_from(sorted(VERBS))
places = st.integers(0, MOST_VMS - 1)
transactions = st.one_of(st.integers(0, 8), st.integers(0, 40))


@pytest.fixture(scope="module")
def doomed() -> Iterator[DoomedServer]:
    with doomed_server() as server:
        yield server


def content(path: Path) -> str:
    """Of a disk, of which most is nothing."""
    found = hashlib.sha256()
    with path.open("rb") as disk:
        at = 0
        with suppress(OSError):  # nothing but nothing is left
            while True:
                at = os.lseek(disk.fileno(), at, os.SEEK_DATA)
                block = os.pread(disk.fileno(), 4096, at)
                if block.strip(b"\0"):
                    found.update(at.to_bytes(8, "big") + block)
                at += 4096
    return found.hexdigest()


def disk(server: Server, vm_id: str) -> Path:
    return server.state / "vms" / vm_id / "disk.raw"


def kept_disk(server: Server, snapshot: snapshot_pb2.Snapshot, parents: Mapping[str, str]) -> str:
    """What is on it, which may be told from what is on its parent's."""
    deltas: list[Path] = []
    which = snapshot.id
    while not (whole := server.state / "snapshots" / which / "disk.raw").exists():
        deltas.insert(0, whole.with_name(f"disk.raw{block_delta.SUFFIX}"))
        which = parents[which]
    made = server.state / "snapshots" / f"{snapshot.id}.looked-at"
    block_delta.compose(Stop(), Stack(whole, tuple(deltas)), made)
    try:
        return content(made)
    finally:
        made.unlink()


def machine(server: DoomedServer, moves: list[str]) -> type[RuleBasedStateMachine]:
    """One whose VMs are on that server. What it does is appended to `moves`."""

    def told(move: Move) -> Move:
        """What fails is told as it came: hypothesis tries again before it tells, and that may go otherwise."""

        @wraps(move)
        def telling(*args: object, **fields: object) -> object:
            try:
                return move(*args, **fields)
            except Exception:
                traceback.print_exc()
                print(*moves[-4:], server.said(), sep="\n")  # noqa: T201
                raise

        return cast("Move", telling)

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.disks: dict[str, str] = {}
            """What is on each VM's."""
            self.snapshots: dict[str, str] = {}
            """By snapshot: what is on its own."""
            self.written = 0

        @initialize(started=st.booleans())
        def begin(self, started: bool) -> None:
            if server.dead:  # what has failed
                server.kill_at.unlink(missing_ok=True)
                server.start()
            self.create(started)

        def create(self, started: bool) -> None:
            vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=SPEC, no_start=not started)).vm
            self.disks[vm.id] = content(disk(server, vm.id))

        @rule(verb=verbs, place=places)
        @told
        def do(self, verb: str, place: int) -> None:
            moves.append(verb)
            self.attempt(verb, self.vm(place))

        @rule(one=verbs, other=verbs, place=places)
        @told
        def do_both(self, one: str, other: str, place: int) -> None:
            moves.append(f"{one} and {other}")
            threads = [Thread(target=self.attempt, args=(verb, self.vm(place))) for verb in (one, other)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        @rule(place=places)
        @told
        def write(self, place: int) -> None:
            """As its guest would, where a file system has nothing."""
            vm = self.vm(place)
            self.written += 1
            with disk(server, vm).open("r+b") as file:
                file.write(b"written %d" % self.written)
            self.disks[vm] = content(disk(server, vm))

        @rule(verb=verbs, place=places, transaction=transactions)
        @told
        def kill_the_server_amid(self, verb: str, place: int, transaction: int) -> None:
            moves.append(f"kill the server amid {verb}")
            server.kill_at.write_text(str(transaction))
            self.attempt(verb, self.vm(place))
            self.revive()

        @rule(one=verbs, other=verbs, place=places, other_place=places, transaction=transactions)
        @told
        def kill_the_server_amid_both(
            self, one: str, other: str, place: int, other_place: int, transaction: int
        ) -> None:
            moves.append(f"kill the server amid {one} and {other}")
            server.kill_at.write_text(str(transaction))
            both = ((one, self.vm(place)), (other, self.vm(other_place)))
            threads = [Thread(target=self.attempt, args=each) for each in both]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.revive()

        @rule(verb=verbs, place=places, transaction=transactions, next_one=st.integers(0, 12))
        @told
        def kill_the_next_as_well(self, verb: str, place: int, transaction: int, next_one: int) -> None:
            moves.append(f"kill the server amid {verb}, and the next one")
            server.kill_at.write_text(str(transaction))
            self.attempt(verb, self.vm(place))
            self.revive(next_one)

        @rule(place=places)
        @told
        def kill_the_vmm(self, place: int) -> None:
            moves.append("kill the VMM")
            now = server.vms.GetVm(vm_pb2.GetVmRequest(vm=self.vm(place))).vm
            if not now.pid:
                return
            os.kill(now.pid, signal.SIGKILL)
            deadline = time.monotonic() + NOTICED_SECONDS
            while state(server, now) in WITH_PROCESS:
                assert time.monotonic() < deadline
                time.sleep(0.01)

        @rule(place=places)
        @told
        def kill_the_vmm_while_no_server_is_there(self, place: int) -> None:
            moves.append("kill the server, and a VMM")
            now = server.vms.GetVm(vm_pb2.GetVmRequest(vm=self.vm(place))).vm
            server.kill()
            if now.pid:
                os.kill(now.pid, signal.SIGKILL)
            server.start()

        def vm(self, place: int) -> str:
            """There is one."""
            there = list(self.disks)
            return there[place % len(there)]

        def attempt(self, verb: str, vm: str) -> None:
            """Do it, or be told why not and what to do instead; or nobody is there any more who could tell."""
            try:
                VERBS[verb](server, vm)
            except grpc.RpcError as error:
                if not error.trailing_metadata():  # the server itself always says why
                    assert server.process is not None
                    server.process.wait(NOTICED_SECONDS)
                    return
                told = refusal(error)
                assert told.reason in FINE, (verb, told)
                assert told.remedy or told.reason != "WRONG_STATE", (verb, told)

        def revive(self, transaction: int | None = None) -> None:
            """Have a server that nothing kills; before it one that is killed while it recovers, perhaps."""
            server.kill_at.unlink()
            with suppress(grpc.RpcError):  # one that was about to end itself
                server.list()
            if not server.dead:
                return
            if transaction is not None:
                server.kill_at.write_text(str(transaction))
                with suppress(AssertionError, grpc.FutureTimeoutError):
                    server.start()
                if not server.dead:
                    server.kill()
                server.kill_at.unlink()
            server.start()

        @invariant()
        @told
        def nothing_is_in_passing(self) -> None:
            if not self.disks:
                return
            all_is_in_order(server)
            there = {vm.id: vm for vm in server.list()}
            snapshots = {snapshot.id: snapshot for snapshot in server.snapshot_list()}
            were = dict(self.disks)
            self.disks.clear()
            parents = {each.id: each.parent_id for each in snapshots.values()}
            for snapshot_id, snapshot in snapshots.items():
                now = kept_disk(server, snapshot, parents)
                assert now == self.snapshots.setdefault(snapshot_id, now), "a snapshot never changes"
                assert now in {*were.values(), *self.snapshots.values()}
            for vm in there.values():
                now = content(disk(server, vm.id))
                allowed = {self.snapshots.get(vm.snapshot_id), were.get(vm.id)}
                assert now in allowed, (vm, moves[-3:])
                self.disks[vm.id] = now
            for vm_id in list(self.disks)[MOST_VMS:]:
                server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm_id, force=True))
                del self.disks[vm_id]
            if not self.disks:
                self.create(True)

        def teardown(self) -> None:
            for vm_id in self.disks:
                vm = server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm_id)).vm
                assert vm.state == vm_pb2.VM_STATE_RUNNING
                assert server.run(vm_id, "true")[0] == 0
                server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm_id, force=True))
            for snapshot in server.snapshot_list():
                server.snapshots.DeleteSnapshot(snapshot_pb2.DeleteSnapshotRequest(snapshot=snapshot.id))
            nothing_left(server)

    return Machine


def test_random_verbs_and_kills_lead_into_no_dead_end(doomed: DoomedServer, request: pytest.FixtureRequest) -> None:
    moves: list[str] = []
    slow = request.config.getoption("--slow")
    run_state_machine_as_test(
        machine(doomed, moves),
        settings=settings(
            max_examples=600 if slow else 8,
            stateful_step_count=MOVES_EACH,
            deadline=None,
            database=None,
            derandomize=not slow,
            # The server of the next example is that of this one: what fails is told as it came, not made smaller.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{len(moves)} moves")  # noqa: T201 - with pytest -s
    assert len(moves) > (9000 if slow else 100)
