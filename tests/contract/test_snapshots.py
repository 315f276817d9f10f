"""Snapshots, and what is made of them, with VMs whose machine is a stand-in: what is kept, refused and taken away."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract.test_engines import create, delete
from harness import Server, nothing_left, refused
from ingle.v1 import event_pb2, snapshot_pb2, system_pb2, vm_pb2

CREATED, DELETED = event_pb2.EVENT_KIND_SNAPSHOT_CREATED, event_pb2.EVENT_KIND_SNAPSHOT_DELETED
RELEASED = event_pb2.EVENT_KIND_SNAPSHOT_RELEASED
KINDS = (CREATED, DELETED, RELEASED, event_pb2.EVENT_KIND_VM_RESTORED)


@pytest.fixture
def server(red_server: Server) -> Iterator[Server]:
    yield red_server
    for vm in red_server.list():
        delete(red_server, vm.id)
    while left := red_server.snapshot_list():
        for snapshot in left:
            if not snapshot.used_by:
                remove(red_server, snapshot.id)
    nothing_left(red_server)


def taken(server: Server, vm: str, name: str, **fields: object) -> snapshot_pb2.Snapshot:
    request = snapshot_pb2.CreateSnapshotRequest(vm=vm, name=name, **fields)  # type: ignore[arg-type]
    return server.snapshots.CreateSnapshot(request).snapshot


def remove(server: Server, snapshot: str) -> list[str]:
    """What keeps it, without its name."""
    request = snapshot_pb2.DeleteSnapshotRequest(snapshot=snapshot)
    return list(server.snapshots.DeleteSnapshot(request).used_by)


def forks(server: Server, **fields: object) -> list[vm_pb2.Vm]:
    return list(server.vms.ForkVm(vm_pb2.ForkVmRequest(**fields)).vms)  # type: ignore[arg-type]


def disk(server: Server, vm_id: str) -> Path:
    (path,) = (server.state / "vms" / vm_id).glob("disk.*")
    return path


def write(server: Server, vm_id: str, marker: bytes) -> None:
    """As its guest would, at the end of the disk."""
    with disk(server, vm_id).open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(marker.ljust(512, b"\0"))


def marker(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-512, os.SEEK_END)
        return file.read().rstrip(b"\0")


def stopped(server: Server, name: str) -> vm_pb2.Vm:
    spec = vm_pb2.VmSpec(name=name, engine="red", image="tiny", kernel="made-up", labels={"team": "web"})
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec, no_start=True)).vm


def test_a_snapshot_is_what_the_disk_was_and_its_owners_alone(server: Server) -> None:
    web = stopped(server, "web")
    write(server, web.id, b"before")
    before = taken(server, "web", "before", labels={"keep": "yes"})
    write(server, web.id, b"after")
    directory = server.state / "snapshots" / before.id
    assert (before.vm_id, before.vm_name, before.memory, before.pause.ToNanoseconds()) == (web.id, "web", False, 0)
    assert before.state == snapshot_pb2.SNAPSHOT_STATE_READY
    assert marker(directory / "disk.raw") == b"before"
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o400}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    manifest = json.loads((directory / "manifest.json").read_text())
    assert [(each["name"], each["size"]) for each in manifest["files"]] == [("disk.raw", web.disk_bytes)]
    (listed,) = server.snapshot_list()
    assert listed == before == server.snapshots.GetSnapshot(snapshot_pb2.GetSnapshotRequest(snapshot="before")).snapshot
    remove(server, "before")
    assert not directory.exists()


def test_a_list_of_snapshots_is_filtered_and_paged(server: Server) -> None:
    for name in ("web", "db"):
        stopped(server, name)
        for number in (1, 2):
            taken(server, name, f"{name}-{number}", labels={"number": str(number)})

    def names(**fields: object) -> list[str]:
        request = snapshot_pb2.ListSnapshotsRequest(**fields)  # type: ignore[arg-type]
        return [snapshot.name for snapshot in server.snapshots.ListSnapshots(request).snapshots]

    assert names() == ["web-1", "web-2", "db-1", "db-2"]
    assert names(of_vm="db") == ["db-1", "db-2"]
    assert names(labels=["number=2"]) == ["web-2", "db-2"]
    first = server.snapshots.ListSnapshots(snapshot_pb2.ListSnapshotsRequest(page_size=3))
    assert [snapshot.name for snapshot in first.snapshots] == ["web-1", "web-2", "db-1"]
    assert names(page_size=3, page_token=first.next_page_token) == ["db-2"]


def test_forks_begin_with_the_disk_of_the_snapshot_and_go_their_own_ways(server: Server) -> None:
    web = stopped(server, "web")
    write(server, web.id, b"before")
    before = taken(server, "web", "before")
    made = forks(server, snapshot="before", count=3, name="try-{}")
    assert [vm.name for vm in made] == ["try-1", "try-2", "try-3"]
    assert {vm.state for vm in made} == {vm_pb2.VM_STATE_RUNNING}
    assert {(vm.snapshot_id, vm.labels["team"], marker(disk(server, vm.id))) for vm in made} == {
        (before.id, "web", b"before")
    }
    for vm in made:
        assert server.run(vm.name, "echo", vm.id) == (0, f"{vm.id}\n".encode(), b"")
    write(server, made[0].id, b"mine")
    assert marker(disk(server, made[1].id)) == b"before"
    assert server.snapshot_list()[0].used_by == ["try-1", "try-2", "try-3"]


def test_a_snapshot_that_is_deleted_while_vms_rest_on_it_goes_with_the_last(server: Server) -> None:
    web = stopped(server, "web")
    write(server, web.id, b"before")
    before = taken(server, "web", "before")
    server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before"))
    forks(server, snapshot="before", name="try")
    assert remove(server, "before") == ["try", "web"]
    (left,) = server.snapshot_list()
    assert (left.id, left.name, list(left.used_by)) == (before.id, "", ["try", "web"])
    for call in (
        lambda: forks(server, snapshot="before"),
        lambda: server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before")),
        lambda: remove(server, "before"),
    ):
        assert refused(call).reason == "SNAPSHOT_NOT_FOUND"
    assert remove(server, before.id) == ["try", "web"], "again, for whoever has its id"
    again = taken(server, "web", "before")
    assert (again.parent_id, again.id != before.id) == (before.id, True)
    assert server.run("try", "echo", "alive") == (0, b"alive\n", b"")
    delete(server, "try")
    delete(server, "web")
    assert [(left.id, list(left.used_by)) for left in server.snapshot_list()] == [
        (before.id, [again.id]),
        (again.id, []),
    ]
    assert remove(server, "before") == []
    assert server.snapshot_list() == []
    assert [*(server.state / "snapshots").iterdir()] == []


def test_a_fork_of_a_vm_takes_its_snapshot_along(server: Server) -> None:
    web = stopped(server, "web")
    write(server, web.id, b"now")
    one, two = forks(server, vm="web", count=2)
    (snapshot,) = server.snapshot_list()
    assert (snapshot.name, {vm.snapshot_id for vm in (one, two)}) == ("", {snapshot.id})
    assert marker(disk(server, two.id)) == b"now"
    delete(server, one.id)
    assert len(server.snapshot_list()) == 1
    delete(server, two.id)
    assert server.snapshot_list() == []


@pytest.mark.parametrize("runs", [False, True], ids=["stopped", "running"])
def test_a_vm_that_is_put_back_has_the_disk_of_then(server: Server, *, runs: bool) -> None:
    web = create(server, "web", "red") if runs else stopped(server, "web")
    write(server, web.id, b"before")
    before = taken(server, "web", "before", disk_only=True)
    write(server, web.id, b"after")
    back = server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before")).vm
    assert (back.id, back.snapshot_id, marker(disk(server, web.id))) == (web.id, before.id, b"before")
    assert back.state == (vm_pb2.VM_STATE_RUNNING if runs else vm_pb2.VM_STATE_STOPPED)
    if runs:
        assert back.pid != web.pid
        assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")
    assert [path.name for path in (server.state / "vms" / web.id).iterdir() if path.is_dir()] == []


def test_a_vm_that_is_put_back_has_the_machine_of_then_and_the_place_of_now(server: Server) -> None:
    web = stopped(server, "web")
    taken(server, "web", "before")
    change = vm_pb2.UpdateVmRequest(
        vm="web",
        spec=vm_pb2.VmSpec(
            name="shop", vcpus=2, memory_bytes=2**30, disk_bytes=web.disk_bytes + 2**30, labels={"team": "db"}
        ),
    )
    change.update_mask.paths.extend(("name", "vcpus", "memory_bytes", "disk_bytes", "labels"))
    changed = server.vms.UpdateVm(change).vm
    back = server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="shop", snapshot="before")).vm
    assert (back.name, dict(back.labels), back.generation) == ("shop", {"team": "db"}, changed.generation + 1)
    assert (back.vcpus, back.memory_bytes, back.disk_bytes) == (web.vcpus, web.memory_bytes, web.disk_bytes)
    assert disk(server, web.id).stat().st_size == web.disk_bytes


def test_forks_of_one_snapshot_may_be_made_by_several_at_once(server: Server) -> None:
    stopped(server, "web")
    taken(server, "web", "before")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda name: forks(server, snapshot="before", name=name), ("a", "b", "c", "d")))
    assert [vm.name for (vm,) in made] == ["a", "b", "c", "d"]


def test_all_forks_are_made_or_none(server: Server) -> None:
    stopped(server, "web")
    before = taken(server, "web", "before")
    with sqlite3.connect(server.state / "ingle.db") as db:  # as if somebody took the name just now
        db.execute(
            "CREATE TRIGGER taken BEFORE INSERT ON vms WHEN NEW.name = 'try-3' "
            "BEGIN SELECT RAISE(ABORT, 'UNIQUE constraint failed: vms.name'); END"
        )
    try:
        assert refused(forks, server, snapshot="before", count=5, name="try-{}").reason == "NAME_TAKEN"
        assert refused(forks, server, vm="web", count=5, name="try-{}").reason == "NAME_TAKEN"
    finally:
        with sqlite3.connect(server.state / "ingle.db") as db:
            db.execute("DROP TRIGGER taken")
    assert [vm.name for vm in server.list()] == ["web"]
    assert [snapshot.id for snapshot in server.snapshot_list()] == [before.id]


def test_a_snapshot_of_a_running_vm_leaves_it_running(server: Server) -> None:
    web = create(server, "web", "red")
    before = taken(server, "web", "before", disk_only=True)
    assert before.pause.ToNanoseconds() > 0
    assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")
    now = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
    assert (now.pid, now.boot_id, now.state) == (web.pid, web.boot_id, vm_pb2.VM_STATE_RUNNING)


def test_a_snapshot_of_a_fork_rests_on_the_one_that_the_fork_is_of(server: Server) -> None:
    stopped(server, "web")
    first = taken(server, "web", "first")
    forks(server, snapshot="first", name="fork")
    second = taken(server, "fork", "second", disk_only=True)
    assert second.parent_id == first.id
    delete(server, "fork")
    delete(server, "web")
    assert [list(snapshot.used_by) for snapshot in server.snapshot_list()] == [[second.id], []]


TAMPERED: dict[str, Callable[[Path], None]] = {
    "changed": lambda directory: rewritten(directory / "disk.raw", b"x", at=100),
    "truncated": lambda directory: os.truncate(directory / "disk.raw", 4096),
    "missing": lambda directory: (directory / "disk.raw").unlink(),
    "more": lambda directory: (directory / "state").touch(),
    "link": lambda directory: replaced(directory / "disk.raw"),
    "manifest": lambda directory: rewritten(directory / "manifest.json", b"7", at=14),
}


def rewritten(path: Path, data: bytes, at: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def replaced(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("how", TAMPERED)
def test_nothing_is_started_of_a_snapshot_that_is_damaged(server: Server, how: str) -> None:
    web = stopped(server, "web")
    write(server, web.id, b"now")
    before = taken(server, "web", "before")
    TAMPERED[how](server.state / "snapshots" / before.id)
    for call in (
        lambda: forks(server, snapshot="before", name="never"),
        lambda: server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before")),
    ):
        refusal = refused(call)
        assert refusal.reason == "SNAPSHOT_INVALID", refusal
        assert "nothing was started" in refusal.message
        assert "ingle snapshot delete before" in refusal.remedy
    assert [vm.name for vm in server.list()] == ["web"]
    assert (marker(disk(server, web.id)), server.list()[0].snapshot_id) == (b"now", "")
    remove(server, "before")


def test_what_can_not_be_is_refused_before_anything_changes(server: Server) -> None:
    stopped(server, "web")
    stopped(server, "db")
    taken(server, "web", "before")
    for call, reason in (
        (lambda: taken(server, "web", "before"), "NAME_TAKEN"),
        (lambda: taken(server, "web", "Before"), "INVALID_ARGUMENT"),
        (lambda: taken(server, "web", "0123456789ab"), "INVALID_ARGUMENT"),
        (lambda: taken(server, "web", "more", labels={"A": ""}), "INVALID_ARGUMENT"),
        (lambda: taken(server, "wen", "more"), "VM_NOT_FOUND"),
        (lambda: forks(server, snapshot="behind"), "SNAPSHOT_NOT_FOUND"),
        (lambda: forks(server, snapshot="before", count=0), "INVALID_ARGUMENT"),
        (lambda: forks(server, snapshot="before", count=101), "INVALID_ARGUMENT"),
        (lambda: forks(server, snapshot="before", count=2, name="same"), "INVALID_ARGUMENT"),
        (lambda: forks(server, snapshot="before", name="db"), "NAME_TAKEN"),
        (lambda: forks(server, snapshot="before", vm="web"), "INVALID_ARGUMENT"),
        (lambda: forks(server), "INVALID_ARGUMENT"),
        (lambda: server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="db", snapshot="before")), "INVALID_ARGUMENT"),
    ):
        assert refused(call).reason == reason
    assert [vm.name for vm in server.list()] == ["web", "db"]
    assert [snapshot.name for snapshot in server.snapshot_list()] == ["before"]


def test_what_happens_to_snapshots_is_told(server: Server) -> None:
    stopped(server, "web")
    *_, last = server.events.WatchEvents(event_pb2.WatchEventsRequest(no_follow=True))
    before = taken(server, "web", "before", labels={"keep": "yes"})
    server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before"))
    remove(server, "before")
    delete(server, "web")
    request = event_pb2.WatchEventsRequest(after=last.cursor, no_follow=True, kinds=KINDS)
    told = [answer.event for answer in server.events.WatchEvents(request) if answer.HasField("event")]
    assert [(event.kind, event.name) for event in told] == [
        (CREATED, "before"),
        (event_pb2.EVENT_KIND_VM_RESTORED, "web"),
        (RELEASED, "before"),
        (DELETED, ""),
    ]
    assert {event.resource_id for event in told if event.kind != event_pb2.EVENT_KIND_VM_RESTORED} == {before.id}
    assert told[0].resource_kind == event_pb2.RESOURCE_KIND_SNAPSHOT
    assert dict(told[0].attributes) == {"vm": "web", "memory": "false"}
    assert (dict(told[0].labels), dict(told[1].attributes)) == ({"keep": "yes"}, {"snapshot": before.id})


def test_snapshots_count_as_disk(server: Server) -> None:
    def used() -> int:
        items = server.system.GetQuota(system_pb2.GetQuotaRequest()).items
        return next(item.used for item in items if item.name == "disk_bytes")

    web = stopped(server, "web")
    with disk(server, web.id).open("r+b") as file:
        file.write(os.urandom(1 << 20))
    before = used()
    snapshot = taken(server, "web", "before")
    assert snapshot.size_bytes >= 1 << 20
    assert used() - before == snapshot.size_bytes
    kinds = {use.kind: use for use in server.system.GetDiskUsage(system_pb2.GetDiskUsageRequest()).uses}
    use = kinds[system_pb2.DISK_USE_KIND_SNAPSHOTS]
    assert (use.count > 0, use.allocated_bytes >= snapshot.size_bytes) == (True, True)
    remove(server, "before")
    assert used() == before


def ingle(server: Server, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "ingle.cli", *words]
    env = {**server.env, "INGLE_SOCKET": str(server.socket)}
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, ended
    return ended
