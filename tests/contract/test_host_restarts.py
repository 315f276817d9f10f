"""The host restarts: all processes are gone, and the runtime directory with them. What is on the disk is whole, VMs
that are to be up are started in their turns, and each of the others says what became of it."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from contract.doomed import SPEC, DoomedServer, all_is_in_order, doomed_server
from contract.test_sleep import HIBERNATED, RUNNING, STOPPED, hibernate, pause
from harness import nothing_left
from ingle.v1 import snapshot_pb2, vm_pb2

ERROR = vm_pb2.VM_STATE_ERROR
MOST_TRANSACTIONS = 40


@pytest.fixture
def server() -> Iterator[DoomedServer]:
    with doomed_server() as server:
        yield server
        for vm in server.list():
            server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
        nothing_left(server)


def create(server: DoomedServer, name: str, *, turn: int = 0, no_start: bool = False) -> vm_pb2.Vm:
    spec = vm_pb2.VmSpec(name=name, auto_start=turn)
    spec.MergeFrom(SPEC)
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec, no_start=no_start)).vm


def restart_host(server: DoomedServer) -> None:
    if not server.dead:
        server.kill()
    for pid in server.vmm_processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(server.root / "run")
    (server.root / "run").mkdir(mode=0o700)
    server.env["BOOTED_AT"] = datetime.now(UTC).isoformat()
    server.start()


def states(server: DoomedServer) -> dict[str, vm_pb2.VmState.ValueType]:
    return {vm.name: vm.state for vm in server.list()}


def test_vms_are_up_in_their_turns_asleep_as_before_or_say_what_became_of_them(server: DoomedServer) -> None:
    create(server, "last", turn=900)
    create(server, "first", turn=1)
    create(server, "off", turn=20, no_start=True)
    pause(server, create(server, "dozed", turn=30))
    create(server, "plain")
    pause(server, create(server, "dozed-plain"))
    create(server, "off-plain", no_start=True)
    for vm in (create(server, "asleep"), create(server, "asleep-too", turn=2)):
        hibernate(server, vm)
    restart_host(server)
    all_is_in_order(server)
    assert states(server) == {
        **dict.fromkeys(("last", "first", "off", "dozed"), RUNNING),
        **dict.fromkeys(("plain", "dozed-plain"), ERROR),
        "off-plain": STOPPED,
        **dict.fromkeys(("asleep", "asleep-too"), HIBERNATED),
    }
    told = {vm.name: vm.error for vm in server.list() if vm.error}
    assert told == dict.fromkeys(("plain", "dozed-plain"), "its VMM ended while no server was there to see it")
    up = sorted((vm.started_at.ToNanoseconds(), vm.name) for vm in server.list() if vm.state == RUNNING)
    assert [name for _, name in up] == ["first", "off", "dozed", "last"]
    for name in states(server):
        server.vms.StartVm(vm_pb2.StartVmRequest(vm=name))
        assert server.run(name, "true")[0] == 0, "asleep or not"


def test_one_that_can_not_be_started_says_why_and_the_next_is_started(server: DoomedServer) -> None:
    create(server, "broken", turn=1)
    create(server, "web", turn=2)
    token = server.state / "vms" / server.list()[0].id / "agent-token"
    token.unlink()
    token.mkdir()  # in the way of what its VMM needs
    restart_host(server)
    all_is_in_order(server)
    broken, web = server.list()
    assert (broken.state, web.state) == (ERROR, RUNNING)
    assert broken.error.startswith("it was to be started with the host, and could not be: ")
    token.rmdir()
    assert server.vms.StartVm(vm_pb2.StartVmRequest(vm="broken")).vm.state == RUNNING


def test_a_server_that_starts_again_on_the_same_host_leaves_stopped_what_somebody_has_stopped(
    server: DoomedServer,
) -> None:
    vm = create(server, "web", turn=1)
    server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
    assert server.stop() == 0
    server.start()
    all_is_in_order(server)
    assert states(server) == {"web": STOPPED}


def test_a_server_that_is_killed_while_it_starts_them_is_followed_by_one_that_goes_on(server: DoomedServer) -> None:
    for number in (1, 2, 3):
        create(server, f"vm-{number}", turn=number)
    for transaction in range(5, MOST_TRANSACTIONS, 12):
        server.kill_at.write_text(str(transaction))
        with suppress(AssertionError, grpc.FutureTimeoutError):  # killed before it served
            restart_host(server)
        assert server.process is not None
        server.process.wait(30)
        server.kill_at.unlink()
        server.start()
        all_is_in_order(server)
        assert set(states(server).values()) == {RUNNING}


def test_a_snapshot_that_was_half_made_is_gone_and_one_that_was_made_is_whole(server: DoomedServer) -> None:
    vm = create(server, "web")
    kept = server.snapshots.CreateSnapshot(snapshot_pb2.CreateSnapshotRequest(vm="web", name="kept")).snapshot
    for transaction in range(MOST_TRANSACTIONS):
        server.kill_at.write_text(str(transaction))
        with pytest.raises(grpc.RpcError):
            server.snapshots.CreateSnapshot(snapshot_pb2.CreateSnapshotRequest(vm="web", name="half"))
        assert server.process is not None
        server.process.wait(30)
        server.kill_at.unlink(missing_ok=True)
        half_made = len(list((server.state / "snapshots").iterdir())) > 1
        restart_host(server)
        all_is_in_order(server)
        assert [each.id for each in server.snapshot_list()] == [kept.id]
        server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id))
        if half_made:
            break
    else:
        pytest.fail("none was half made")
    server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="kept"))
    assert server.run("web", "true")[0] == 0
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="web", force=True))
    server.snapshots.DeleteSnapshot(snapshot_pb2.DeleteSnapshotRequest(snapshot="kept"))


def test_the_turn_of_a_vm_is_changed_while_it_runs(server: DoomedServer) -> None:
    vm = create(server, "web")
    change = vm_pb2.UpdateVmRequest(
        vm=vm.id, spec=vm_pb2.VmSpec(auto_start=7), update_mask=FieldMask(paths=["auto_start"])
    )
    assert server.vms.UpdateVm(change).vm.auto_start == 7
    restart_host(server)
    all_is_in_order(server)
    assert states(server) == {"web": RUNNING}
