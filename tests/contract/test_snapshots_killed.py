"""The server is killed before each of the transactions of what is done with snapshots, and while a guest stands still
for one. The next one leaves nothing half made: VMs run, and what is listed is whole."""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import grpc
import pytest

from contract.test_engines import create, delete
from contract.test_snapshot_transfer import exported, imported
from contract.test_snapshots import disk, forks, marker, remove, taken, write
from harness import Server, no_process_left, nothing_left, server_directory
from ingle.testing import made_up
from ingle.testing.fake_vmm import RAM_FILE
from ingle.v1 import operation_pb2, snapshot_pb2, vm_pb2
from uploading import image_upload, kernel_upload

SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED


@pytest.fixture
def step(pytestconfig: pytest.Config) -> int:
    """From one transaction to the next that is tried."""
    return 1 if pytestconfig.getoption("slow") else 7


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """With a VM that runs, whose disk is `before` in a snapshot and `after` now."""
    with server_directory() as root:
        server = Server(root, {"PYTHONPATH": os.pathsep.join(sys.path)})
        server.argv = [sys.executable, "-m", "ingle.testing.serve", "red", "serve"]
        server.start()
        try:
            (root / "tree").mkdir()
            (root / "tree" / "file").write_text("all that an image needs")
            server.images.RegisterImage(image_upload("tiny", root / "tree"))
            server.kernels.ImportKernel(kernel_upload("made-up", made_up.VMLINUX))
            web = create(server, "web", "red")
            write(server, web.id, b"before")
            taken(server, "web", "before")
            write(server, web.id, b"after")
            yield server
            for vm in server.list():
                delete(server, vm.id)
            remove(server, "before")
            nothing_left(server)
        finally:
            if server.process is not None and server.process.poll() is None:
                assert server.stop() == 0, server.said()
            no_process_left(server)


@contextmanager
def doomed(server: Server, kind: str, at: str) -> Iterator[None]:
    """The server is one that kills itself; another one has taken its place afterwards."""
    assert server.stop() == 0, server.said()
    usual = server.argv
    server.argv = [sys.executable, "-m", "contract.dying_server", "red", "serve"]
    server.env |= {"KILL_KIND": kind, "KILL_AT": at}
    server.start()
    try:
        yield
    finally:
        server.argv = usual
        if server.process is not None and server.process.poll() is None:
            server.stop()
        server.start()


def died(server: Server, kind: str, at: str, call: Callable[[], object]) -> bool:
    """Whether the call was answered by the end of the server."""
    with doomed(server, kind, at):
        assert server.process is not None
        try:
            call()
        except grpc.RpcError as error:
            answer = error.code()
        else:
            return False
        assert (answer, server.process.wait(30)) == (grpc.StatusCode.UNAVAILABLE, -signal.SIGKILL)
    return True


def nothing_half_made(server: Server) -> None:
    """What is listed is there and whole; nothing else is there."""
    settled(server)
    vms, snapshots = server.list(), server.snapshot_list()
    assert {snapshot.state for snapshot in snapshots} == {snapshot_pb2.SNAPSHOT_STATE_READY}
    assert sorted(path.name for path in (server.state / "snapshots").iterdir()) == sorted(each.id for each in snapshots)
    assert sorted(path.name for path in (server.state / "vms").iterdir()) == sorted(vm.id for vm in vms)
    for vm in vms:
        assert not [path for path in (server.state / "vms" / vm.id).iterdir() if path.is_dir()]
        if vm.state == vm_pb2.VM_STATE_RUNNING:
            assert server.run(vm.id, "echo", "alive") == (0, b"alive\n", b"")
    with sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True) as db:
        assert db.execute("SELECT * FROM journal").fetchall() == []
        assert db.execute("SELECT id FROM operations WHERE state = 'RUNNING'").fetchall() == []


def settled(server: Server) -> None:
    """Wait until the next server has started again what has run."""
    deadline = time.monotonic() + 30
    with closing(sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True)) as db:
        while db.execute(
            "SELECT op_id FROM journal UNION SELECT id FROM operations WHERE state = 'RUNNING'"
        ).fetchall():
            assert time.monotonic() < deadline, server.said()
            time.sleep(0.01)


def last_restore(server: Server) -> operation_pb2.Operation | None:
    """The newest restore; None when it was never heard of."""
    found = server.operations.ListOperations(operation_pb2.ListOperationsRequest(page_size=3)).operations
    return next((each for each in found if each.kind == operation_pb2.OPERATION_KIND_RESTORE_VM), None)


def last(server: Server) -> operation_pb2.Operation:
    return server.operations.ListOperations(operation_pb2.ListOperationsRequest(page_size=1)).operations[0]


@pytest.mark.parametrize("at", ["resume", "thaw"])
def test_a_guest_that_stands_still_goes_on_by_the_next_server(server: Server, at: str) -> None:
    assert died(server, "CREATE_SNAPSHOT", at, lambda: taken(server, "web", "never"))
    assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")
    nothing_half_made(server)
    assert [snapshot.name for snapshot in server.snapshot_list()] == ["before"]
    assert "undid what had been done" in last(server).error.message


def test_a_guest_that_does_not_answer_the_next_server_is_told_of_and_goes_on_when_it_is_asked_again(
    server: Server,
) -> None:
    usual = server.argv
    server.argv = [sys.executable, "-m", "contract.failing_server", "red", "serve"]
    server.env["FAILS_BY"] = "deaf"
    try:
        assert died(server, "CREATE_SNAPSHOT", "thaw", lambda: taken(server, "web", "never"))
        (web,) = server.list()
        assert (web.state, "it does not hear" in web.sleep_error) == (vm_pb2.VM_STATE_RUNNING, True)
        with sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True) as db:
            assert db.execute("SELECT * FROM journal").fetchall() == []
        assert server.stop() == 0, server.said()
    finally:
        server.argv = usual
    server.start()
    assert server.list()[0].sleep_error == web.sleep_error
    server.vms.PauseVm(vm_pb2.PauseVmRequest(vm="web"))
    assert server.vms.ResumeVm(vm_pb2.ResumeVmRequest(vm="web")).vm.sleep_error == ""
    nothing_half_made(server)


def test_a_snapshot_is_whole_or_was_never_there(server: Server, step: int) -> None:
    at = 0
    while died(server, "CREATE_SNAPSHOT", str(at), partial(taken, server, "web", f"made-{at}")):
        at += step
        nothing_half_made(server)
        (web,) = server.list()
        assert web.state == vm_pb2.VM_STATE_RUNNING
        made = [snapshot.name for snapshot in server.snapshot_list() if snapshot.name != "before"]
        if made:
            assert last(server).state == SUCCEEDED
            remove(server, made[0])
    assert at > 8
    remove(server, f"made-{at}")


def test_forks_are_whole_or_were_never_there(server: Server, step: int) -> None:
    at = 0
    while died(server, "FORK_VM", str(at), partial(forks, server, vm="web", count=2, name=f"fork-{at}-{{}}")):
        at += 2 * step  # there are many
        nothing_half_made(server)
        made = [vm for vm in server.list() if vm.name != "web"]
        assert len(server.snapshot_list()) == (2 if made else 1), "what nothing rests on is gone"
        told = last(server)
        for vm in made:
            assert vm.state == vm_pb2.VM_STATE_RUNNING
            assert vm.id in told.error.message
            delete(server, vm.id)
    assert at > 20
    for vm in server.list():
        if vm.name != "web":
            delete(server, vm.id)


def test_a_vm_is_put_back_or_is_what_it_was(server: Server, step: int) -> None:
    (web,) = server.list()
    (before,) = server.snapshot_list()
    at, was = 0, web.snapshot_id
    outcomes: set[bytes] = set()

    def restore() -> None:
        server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before"))

    while died(server, "RESTORE_VM", str(at), restore):
        at += step
        nothing_half_made(server)
        now = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
        assert now.state == vm_pb2.VM_STATE_RUNNING
        found = marker(disk(server, web.id))
        assert (found, now.snapshot_id) in {(b"before", before.id), (b"after", was)}
        outcomes.add(found)
        told = last_restore(server)
        if told is not None and told.state != SUCCEEDED:
            assert "left the VM as it was, or put it back" in told.error.message
            assert found == b"after"
        write(server, web.id, b"after")
        was = now.snapshot_id
    assert at > 12
    assert outcomes == {b"before", b"after"}
    assert marker(disk(server, web.id)) == b"before"
    write(server, web.id, b"after")


def test_one_that_hibernates_is_put_back_or_does_so_again(server: Server, step: int) -> None:
    (web,) = server.list()
    ram = server.state / "vms" / web.id / RAM_FILE
    ram.write_bytes(b"of after")
    at = 0
    states = set()

    def restore() -> None:
        server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before"))

    while True:
        server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm="web"))
        if not died(server, "RESTORE_VM", str(at), restore):
            break
        at += step
        settled(server)
        now = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
        found = marker(disk(server, web.id))
        assert (now.state, found) in {(vm_pb2.VM_STATE_HIBERNATED, b"after"), (vm_pb2.VM_STATE_RUNNING, b"before")}
        states.add(now.state)
        server.vms.StartVm(vm_pb2.StartVmRequest(vm="web"))
        nothing_half_made(server)
        if found == b"after":
            assert ram.read_bytes() == b"of after"
        write(server, web.id, b"after")
        ram.write_bytes(b"of after")
    assert (at > 12, states) == (True, {vm_pb2.VM_STATE_HIBERNATED, vm_pb2.VM_STATE_RUNNING})
    assert marker(disk(server, web.id)) == b"before"
    write(server, web.id, b"after")


def test_a_snapshot_is_deleted_or_is_there(server: Server) -> None:
    at = 0
    while True:
        if not server.snapshots.ListSnapshots(snapshot_pb2.ListSnapshotsRequest(labels=["doomed"])).snapshots:
            taken(server, "web", f"doomed-{at}", labels={"doomed": ""})
        (snapshot,) = server.snapshots.ListSnapshots(snapshot_pb2.ListSnapshotsRequest(labels=["doomed"])).snapshots
        if not died(server, "DELETE_SNAPSHOT", str(at), partial(remove, server, snapshot.id)):
            break
        at += 1
        nothing_half_made(server)
    assert at > 2


def put_ram(server: Server, vm_id: str, ram: bytes) -> None:
    (server.state / "vms" / vm_id / RAM_FILE).write_bytes(ram)


def goes_on_with(server: Server, snapshot: str, ram: bytes) -> None:
    (fork,) = forks(server, snapshot=snapshot)
    assert (server.state / "vms" / fork.id / RAM_FILE).read_bytes() == ram
    delete(server, fork.id)


def test_a_snapshot_is_whole_or_needs_its_parent_or_was_never_there(server: Server, step: int) -> None:
    (web,) = server.list()
    ram = os.urandom(400 * 4096)
    put_ram(server, web.id, ram)
    parent = taken(server, "web", "parent", full=True)
    put_ram(server, web.id, ram[4096:] + bytes(4096))
    at = 0
    while died(server, "CREATE_SNAPSHOT", str(at), partial(taken, server, "web", "child", parent="parent")):
        at += step
        nothing_half_made(server)
        made = [snapshot for snapshot in server.snapshot_list() if snapshot.name == "child"]
        assert server.snapshots.GetSnapshot(snapshot_pb2.GetSnapshotRequest(snapshot="parent")).snapshot.used_by == [
            each.id for each in made
        ]
        if made:
            assert (made[0].parent_id, last(server).state) == (parent.id, SUCCEEDED)
            remove(server, "child")
    assert at > 8
    remove(server, "child")
    remove(server, "parent")


def test_a_snapshot_is_made_flat_or_is_what_it_was(server: Server) -> None:
    (web,) = server.list()
    ram = os.urandom(400 * 4096)
    put_ram(server, web.id, ram)
    root = taken(server, "web", "root", full=True)
    ram = ram[: 200 * 4096] + os.urandom(5 * 4096) + ram[205 * 4096 :]
    put_ram(server, web.id, ram)
    taken(server, "web", "child")
    put_ram(server, web.id, ram[:4096] * 3 + ram[3 * 4096 :])
    taken(server, "web", "grandchild")
    at = 0

    def flatten() -> None:
        server.snapshots.FlattenSnapshot(snapshot_pb2.FlattenSnapshotRequest(snapshot="child"))

    while died(server, "FLATTEN_SNAPSHOT", str(at), flatten):
        at += 1
        nothing_half_made(server)
        now = server.snapshots.GetSnapshot(snapshot_pb2.GetSnapshotRequest(snapshot="child")).snapshot
        assert now.parent_id in ("", root.id)
        goes_on_with(server, "child", ram)
        goes_on_with(server, "grandchild", ram[:4096] * 3 + ram[3 * 4096 :])
        told = last(server)
        if told.kind == operation_pb2.OPERATION_KIND_FLATTEN_SNAPSHOT and told.state != SUCCEEDED:
            assert "left it as it was, or made a whole of it" in told.error.message
        if not now.parent_id:
            break
    assert at > 2
    remove(server, "root")
    assert root.id not in [snapshot.id for snapshot in server.snapshot_list()]
    goes_on_with(server, "child", ram)
    for name in ("child", "grandchild"):
        remove(server, name)


def test_a_snapshot_that_vms_rest_on_loses_its_name_or_has_it(server: Server) -> None:
    at, name = 0, "doomed-too"
    kept = taken(server, "web", name)
    one, two = forks(server, snapshot=kept.id, count=2)
    while died(server, "DELETE_SNAPSHOT", str(at), partial(remove, server, kept.id)):
        at += 1
        nothing_half_made(server)
        left = server.snapshots.GetSnapshot(snapshot_pb2.GetSnapshotRequest(snapshot=kept.id)).snapshot
        assert (left.name in (name, ""), sorted(left.used_by)) == (True, sorted((one.name, two.name)))
    assert at > 1
    delete(server, one.id)
    assert kept.id in [snapshot.id for snapshot in server.snapshot_list()], "one rests on it still"
    at = 0
    while died(server, "DELETE_VM", str(at), partial(delete, server, two.id)):
        at += 1
        nothing_half_made(server)
        there = two.id in [vm.id for vm in server.list()]
        assert (kept.id in [snapshot.id for snapshot in server.snapshot_list()]) == there
        if not there:
            break
    assert at > 1


def test_a_snapshot_is_imported_or_was_never_there(server: Server, step: int) -> None:
    archive = exported(server, "before")
    at = 0
    while died(server, "IMPORT_SNAPSHOT", str(at), partial(imported, server, archive, f"come-{at}")):
        at += step
        nothing_half_made(server)
        come = [snapshot.name for snapshot in server.snapshot_list() if snapshot.name.startswith("come")]
        if come:
            assert last(server).state == SUCCEEDED
            remove(server, come[0])
    assert at > 3
    remove(server, f"come-{at}")
