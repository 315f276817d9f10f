"""Snapshots that leave a server as one file, and come to another, with VMs whose machine is a stand-in."""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from contract.test_engines import create, delete
from contract.test_snapshots import disk, forks, ingle, marker, remove, server, stopped, taken, write
from harness import Server, refused
from ingle.v1 import snapshot_pb2, vm_pb2
from ingle.v1.upload_pb2 import UploadEnd

__all__ = ["server"]  # the fixture


def exported(server: Server, name: str) -> bytes:
    request = snapshot_pb2.ExportSnapshotRequest(snapshot=name)
    return b"".join(answer.data for answer in server.snapshots.ExportSnapshot(request))


def requests(archive: bytes, name: str = "", *, end: bool = True) -> Iterator[snapshot_pb2.ImportSnapshotRequest]:
    yield snapshot_pb2.ImportSnapshotRequest(start=snapshot_pb2.ImportSnapshotStart(name=name))
    for at in range(0, len(archive), 1 << 18):
        yield snapshot_pb2.ImportSnapshotRequest(data=archive[at : at + (1 << 18)])
    if end:
        yield snapshot_pb2.ImportSnapshotRequest(end=UploadEnd())


def imported(server: Server, archive: bytes, name: str = "") -> snapshot_pb2.Snapshot:
    return server.snapshots.ImportSnapshot(requests(archive, name)).snapshot


def files(server: Server) -> Sequence[str]:
    return sorted(path.name for path in (server.state / "snapshots").iterdir())


def test_what_was_exported_is_imported_and_goes_on(server: Server) -> None:
    web = create(server, "web", "red")
    write(server, web.id, b"before")
    before = taken(server, "web", "before", labels={"keep": "yes"})
    archive = exported(server, "before")
    assert len(archive) < 1 << 20, "what is not there takes nothing"
    delete(server, "web")
    remove(server, "before")
    again = imported(server, archive)
    assert (again.name, again.vm_name, again.memory, dict(again.labels)) == ("before", "web", True, {"keep": "yes"})
    assert again.id != before.id
    (fork,) = forks(server, snapshot="before")
    assert marker(disk(server, fork.id)) == b"before"
    assert server.run(fork.id, "echo", "alive") == (0, b"alive\n", b"")
    assert files(server) == [again.id]


def test_another_name_may_be_given_and_none_that_is_taken(server: Server) -> None:
    stopped(server, "web")
    taken(server, "web", "before")
    archive = exported(server, "before")
    assert refused(imported, server, archive).reason == "NAME_TAKEN"
    assert imported(server, archive, "other").name == "other"
    assert refused(imported, server, archive, "Other").reason == "INVALID_ARGUMENT"
    assert len(files(server)) == len(server.snapshot_list()) == 2


def test_what_is_damaged_cut_or_not_sent_to_its_end_leaves_nothing(server: Server) -> None:
    stopped(server, "web")
    taken(server, "web", "before")
    archive = exported(server, "before")
    remove(server, "before")
    flipped = archive[:-100] + bytes((archive[-100] ^ 1,)) + archive[-99:]
    for wrong in (b"", b"something else", archive[: len(archive) // 2], flipped, archive + b"more"):
        assert refused(imported, server, wrong).reason == "ARCHIVE_INVALID"
    refusal = refused(server.snapshots.ImportSnapshot, requests(archive, end=False))
    assert refusal.reason == "INVALID_ARGUMENT", refusal
    assert (files(server), server.snapshot_list()) == ([], [])


@pytest.mark.parametrize("leave", ["cancel", "deadline"])
def test_who_leaves_amid_an_import_leaves_nothing(server: Server, leave: str) -> None:
    stopped(server, "web")
    taken(server, "web", "before")
    archive = exported(server, "before")
    remove(server, "before")
    sent = threading.Event()

    def all_but_the_end() -> Iterator[snapshot_pb2.ImportSnapshotRequest]:
        yield from requests(archive, end=False)
        sent.set()
        call.add_callback(gone.set)
        gone.wait(60)

    gone = threading.Event()
    call = server.snapshots.ImportSnapshot.future(all_but_the_end(), timeout=3 if leave == "deadline" else 60)
    assert sent.wait(30)
    if leave == "cancel":
        call.cancel()
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call.result()
    deadline = time.monotonic() + 30
    while files(server) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (files(server), server.snapshot_list()) == ([], [])


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("memory_key", "'another engine'", "SNAPSHOT_INCOMPATIBLE"),
        ("settings", "json_set(settings, '$.engine', 'blue-and-gone')", "SNAPSHOT_INCOMPATIBLE"),
        ("settings", "json_set(settings, '$.vcpus', 10000)", "INVALID_ARGUMENT"),
        ("settings", "json_set(settings, '$.network', '../x')", "INVALID_ARGUMENT"),
        ("name", "'../x'", "INVALID_ARGUMENT"),
    ],
)
def test_what_is_of_no_use_here_is_refused(server: Server, column: str, value: str, reason: str) -> None:
    create(server, "web", "red")
    taken(server, "web", "before")
    with sqlite3.connect(server.state / "ingle.db") as db:
        db.execute(f"UPDATE snapshots SET {column} = {value}")
    snapshot_id = server.snapshot_list()[0].id
    archive = exported(server, snapshot_id)
    assert refused(imported, server, archive).reason == reason
    assert files(server) == [snapshot_id]


def test_the_command_line_exports_to_a_file_of_ones_own_and_imports_it(server: Server, tmp_path: Path) -> None:
    stopped(server, "web")
    taken(server, "web", "before")
    file = tmp_path / "before.ingle"
    ingle(server, "snapshot", "export", "before", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ingle(server, "snapshot", "import", str(file), "again").stdout == "again\n"
    assert "before" in ingle(server, "snapshot", "import", str(file), code=1).stderr
    assert os.listdir(tmp_path) == ["before.ingle"]
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="web", force=True))
    ids = {snapshot.name: snapshot.id for snapshot in server.snapshot_list()}
    assert [vm.snapshot_id for vm in forks(server, snapshot="again")] == [ids["again"]]
