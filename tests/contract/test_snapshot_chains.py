"""Snapshots that are kept against others, of VMs whose machine is a stand-in: each is what it was, whatever goes."""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from contract.test_engines import create, delete
from contract.test_snapshot_transfer import exported, imported
from contract.test_snapshots import disk, forks, marker, remove, server, taken, write
from harness import Server, refused
from ingle.testing.fake_vmm import RAM_FILE
from ingle.v1 import snapshot_pb2, vm_pb2

__all__ = ["server"]  # the fixture

PAGE = 4096
PAGES = 1000


def put_ram(server: Server, vm_id: str, ram: bytes) -> None:
    (server.state / "vms" / vm_id / RAM_FILE).write_bytes(ram)


def ram_of(server: Server, vm_id: str) -> bytes:
    return (server.state / "vms" / vm_id / RAM_FILE).read_bytes()


def changed(ram: bytes, number: int) -> bytes:
    """Some pages anew, one of zeros."""
    new = bytearray(ram)
    new[number * 10 * PAGE : (number * 10 + 3) * PAGE] = os.urandom(3 * PAGE)
    new[(number * 10 + 5) * PAGE : (number * 10 + 6) * PAGE] = bytes(PAGE)
    return bytes(new)


@pytest.fixture
def web(server: Server) -> vm_pb2.Vm:
    return create(server, "web", "red")


def chain(server: Server, web: vm_pb2.Vm, count: int, **fields: object) -> list[tuple[snapshot_pb2.Snapshot, bytes]]:
    """So many snapshots, number-0 the first, and what the memory was at each; the disk has `disk-N`."""
    ram, made = os.urandom(PAGES * PAGE), []
    for number in range(count):
        ram = changed(ram, number)
        put_ram(server, web.id, ram)
        write(server, web.id, f"disk-{number}".encode())
        made.append((taken(server, "web", f"number-{number}", **fields), ram))
    return made


def flattened(server: Server, name: str) -> snapshot_pb2.Snapshot:
    return server.snapshots.FlattenSnapshot(snapshot_pb2.FlattenSnapshotRequest(snapshot=name)).snapshot


def shown(server: Server, name: str) -> snapshot_pb2.Snapshot:
    return server.snapshots.GetSnapshot(snapshot_pb2.GetSnapshotRequest(snapshot=name)).snapshot


def is_as_it_was(server: Server, snapshot: str, number: int, ram: bytes) -> None:
    """What starts of it."""
    (fork,) = forks(server, snapshot=snapshot)
    assert ram_of(server, fork.id) == ram
    assert marker(disk(server, fork.id)) == f"disk-{number}".encode()
    assert server.run(fork.id, "echo", "alive") == (0, b"alive\n", b"")
    delete(server, fork.id)


def names_below(server: Server, snapshot: snapshot_pb2.Snapshot) -> Sequence[str]:
    directory = server.state / "snapshots" / snapshot.id
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_a_snapshot_keeps_what_the_one_before_has_not_and_each_is_as_it_was(server: Server, web: vm_pb2.Vm) -> None:
    made = chain(server, web, 4)
    assert [each.depth for each, _ in made] == [0, 1, 2, 3]
    assert [each.parent_id for each, _ in made] == ["", *(each.id for each, _ in made[:-1])]
    whole = made[0][0].size_bytes
    assert whole > PAGES * PAGE
    for each, _ in made[1:]:
        assert each.size_bytes < whole / 10
        assert "memory/memory.delta" in names_below(server, each)
    for number, (each, ram) in reversed([*enumerate(made)]):
        is_as_it_was(server, each.name, number, ram)
    assert "whole/memory/memory" not in names_below(server, made[3][0]), "nothing runs of it any more"


def test_forks_of_one_have_one_memory_and_keep_it_as_long_as_one_runs(server: Server, web: vm_pb2.Vm) -> None:
    (_, (second, _)) = chain(server, web, 2)
    whole = server.state / "snapshots" / second.id / "whole" / "memory" / "memory"
    one, two = forks(server, snapshot=second.id, count=2)
    inode = whole.stat().st_ino
    delete(server, one.id)
    (three,) = forks(server, snapshot=second.id)
    assert whole.stat().st_ino == inode
    whole.chmod(0o600)
    whole.write_bytes(b"not what it was")
    (four,) = forks(server, snapshot=second.id)  # it is no more than what can be made again
    for vm in (two, three, four):
        assert whole.exists()
        delete(server, vm.id)
    assert not whole.exists()


def test_where_a_snapshot_is_kept_can_be_chosen(server: Server, web: vm_pb2.Vm) -> None:
    made = chain(server, web, 3)
    full = taken(server, "web", "full", full=True)
    assert (full.parent_id, full.depth) == ("", 0)
    assert full.size_bytes > PAGES * PAGE
    first = taken(server, "web", "on-the-first", parent="number-0")
    assert (first.parent_id, first.depth) == (made[0][0].id, 1)
    put_ram(server, web.id, os.urandom(PAGES * PAGE))
    write(server, web.id, b"other")
    other = taken(server, "web", "other")
    assert (other.parent_id, other.depth) == ("", 0), "it would save nothing"
    wished = taken(server, "web", "wished", parent="number-2")
    assert wished.parent_id == made[2][0].id
    both = refused(taken, server, "web", "both", parent="number-0", full=True)
    assert both.reason == "INVALID_ARGUMENT"
    assert refused(taken, server, "web", "none", parent="none").reason == "SNAPSHOT_NOT_FOUND"
    taken(server, "web", "disk", disk_only=True)
    assert shown(server, "disk").depth <= 8


def test_a_chain_is_no_deeper_than_eight(server: Server, web: vm_pb2.Vm) -> None:
    made = chain(server, web, 10)
    assert [each.depth for each, _ in made] == [*range(9), 0]
    refusal = refused(taken, server, "web", "deeper", parent="number-8")
    assert (refusal.reason, refusal.remedy) == ("WRONG_STATE", "ingle snapshot flatten number-8")
    is_as_it_was(server, "number-8", 8, made[8][1])
    flattened(server, "number-8")
    assert taken(server, "web", "deeper", parent="number-8").depth == 1
    remove(server, "deeper")


def test_one_that_is_flattened_needs_no_other_and_is_as_it_was(server: Server, web: vm_pb2.Vm) -> None:
    made = chain(server, web, 4)
    fork, *_ = forks(server, snapshot="number-2")
    flat = flattened(server, "number-2")
    assert (flat.parent_id, flat.depth, flat.name) == ("", 0, "number-2")
    assert flat.size_bytes > PAGES * PAGE
    assert [name for name in names_below(server, flat) if not name.startswith("whole/")] == [
        "disk.raw",
        "manifest.json",
        "memory/memory",
    ]
    assert shown(server, "number-3").depth == 1
    assert flattened(server, "number-2") == flat, "again is fine"
    assert server.run(fork.id, "echo", "alive") == (0, b"alive\n", b"")
    delete(server, fork.id)
    for name in ("number-0", "number-1"):
        remove(server, name)
    assert [each.name for each in server.snapshot_list()] == ["number-2", "number-3"]
    for number in (2, 3):
        is_as_it_was(server, f"number-{number}", number, made[number][1])


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))], ids=str)
def test_parents_go_in_any_order_and_with_the_last_that_needs_them(
    server: Server, web: vm_pb2.Vm, order: Sequence[int]
) -> None:
    made = chain(server, web, 3)
    freed, whole = 0, sum(each.size_bytes for each, _ in made)
    left = set(range(3))
    for number in order:
        request = snapshot_pb2.DeleteSnapshotRequest(snapshot=f"number-{number}")
        deleted = server.snapshots.DeleteSnapshot(request)
        freed += deleted.freed_bytes
        left.discard(number)
        assert bool(deleted.used_by) == any(other > number for other in left)
        there = {each.name for each in server.snapshot_list()}
        assert there - {""} == {f"number-{other}" for other in left}
        assert len(server.snapshot_list()) == max(left, default=-1) + 1
        for other in left:
            is_as_it_was(server, f"number-{other}", other, made[other][1])
    assert freed == whole


def harm(path: Path, how: str) -> None:
    path.chmod(0o600)
    if how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "gone":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("how", ["tampered", "truncated", "gone"])
@pytest.mark.parametrize("level", [0, 1])
def test_a_parent_that_is_damaged_is_named_and_nothing_is_started(
    server: Server, web: vm_pb2.Vm, how: str, level: int
) -> None:
    made = chain(server, web, 3)
    damaged, _ = made[level]
    file = "memory/memory" if level == 0 else "memory/memory.delta"
    harm(server.state / "snapshots" / damaged.id / file, how)
    for call in (
        lambda: forks(server, snapshot="number-2", name="never"),
        lambda: server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="number-2")),
        lambda: flattened(server, "number-2"),
        lambda: exported(server, "number-2"),
        lambda: taken(server, "web", "never", parent="number-2"),
    ):
        refusal = refused(call)
        assert refusal.reason == "SNAPSHOT_INVALID"
        assert f"number-{level}" in refusal.message
    assert [(vm.name, vm.pid) for vm in server.list()] == [("web", web.pid)]
    assert [each.name for each in server.snapshot_list()] == ["number-0", "number-1", "number-2"]
    if level == 1:
        is_as_it_was(server, "number-0", 0, made[0][1])


def test_what_is_exported_needs_no_other(server: Server, web: vm_pb2.Vm) -> None:
    made = chain(server, web, 3)
    archive = exported(server, "number-2")
    delete(server, "web")
    for number in range(3):
        remove(server, f"number-{number}")
    assert server.snapshot_list() == []
    again = imported(server, archive, "again")
    assert (again.depth, again.parent_id) == (0, "")
    is_as_it_was(server, "again", 2, made[2][1])


def test_a_vm_that_was_put_back_goes_on_from_there(server: Server, web: vm_pb2.Vm) -> None:
    made = chain(server, web, 3)
    server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="number-1"))
    assert ram_of(server, web.id) == made[1][1]
    ram = changed(made[1][1], 50)
    put_ram(server, web.id, ram)
    write(server, web.id, b"disk-7")
    branch = taken(server, "web", "branch")
    assert branch.size_bytes < made[0][0].size_bytes / 10
    for number in (0, 1, 2):
        remove(server, f"number-{number}")
    is_as_it_was(server, "branch", 7, ram)


def test_a_vm_that_runs_is_forked_from_a_memory_that_is_whole(server: Server, web: vm_pb2.Vm) -> None:
    chain(server, web, 2)
    forks(server, vm="web", name="now")
    (nameless,) = [each for each in server.snapshot_list() if not each.name]
    assert (nameless.depth, "memory/memory" in names_below(server, nameless)) == (0, True)


@pytest.fixture(autouse=True)
def none_left(server: Server) -> Iterator[None]:
    """All snapshots go, in any order."""
    yield
    for vm in server.list():
        delete(server, vm.id)
    for each in server.snapshot_list():
        if each.name:
            remove(server, each.id)
    assert server.snapshot_list() == []
