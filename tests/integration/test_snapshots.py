"""Snapshots of real VMs, and what is made of them: guests that go on where they were, each as its own."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import NewServer, Server, nothing_left, refused
from ingle.v1 import snapshot_pb2, vm_pb2
from ingle.v1.upload_pb2 import UploadEnd

from .engine_guests import EngineKind

MIB = 2**20

_MARK = """
echo $1 >/root/on-disk; echo $1 >/run/in-memory
"""
_LOOK = """
cat /root/on-disk /run/in-memory /etc/hostname /proc/sys/kernel/hostname /etc/machine-id
cat /proc/sys/kernel/random/uuid
kill -0 $(cat /run/sleeper) && echo goes on
date +%s
"""
_FIELDS = ("on_disk", "in_memory", "etc_hostname", "hostname", "machine_id", "random", "sleeper", "time")


def create(server: Server, name: str) -> vm_pb2.Vm:
    spec = vm_pb2.VmSpec(name=name, memory_bytes=256 * MIB, disk_bytes=2**30)
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm


def delete(server: Server, name: str) -> None:
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=name, force=True))


def taken(server: Server, vm: str, name: str, *, disk_only: bool = False, parent: str = "") -> snapshot_pb2.Snapshot:
    request = snapshot_pb2.CreateSnapshotRequest(vm=vm, name=name, disk_only=disk_only, parent=parent)
    return server.snapshots.CreateSnapshot(request).snapshot


def remove(server: Server, name: str) -> None:
    server.snapshots.DeleteSnapshot(snapshot_pb2.DeleteSnapshotRequest(snapshot=name))


def restored(server: Server, vm: str, snapshot: str) -> vm_pb2.Vm:
    return server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm=vm, snapshot=snapshot)).vm


def shell(server: Server, vm: str, script: str, *arguments: str) -> str:
    code, out, said = server.run(vm, "sh", "-c", script, "sh", *arguments)
    assert code == 0, (out, said)
    return out.decode()


def mark(server: Server, vm: str, word: str) -> None:
    shell(server, vm, _MARK, word)


def look(server: Server, vm: str) -> Mapping[str, str]:
    return dict(zip(_FIELDS, shell(server, vm, _LOOK).splitlines(), strict=True))


@pytest.fixture
def server(new_server: NewServer) -> Iterator[Server]:
    server = new_server()
    yield server
    for vm in server.list():
        delete(server, vm.id)
    while left := server.snapshot_list():
        remove(server, left[-1].id)  # the newest, which nothing rests on
    nothing_left(server)


def test_what_is_made_of_a_snapshot_goes_on_where_it_was_as_its_own(server: Server) -> None:
    web = create(server, "web")
    shell(server, "web", "setsid sleep 100000 >/dev/null 2>&1 & echo $! >/run/sleeper")
    mark(server, "web", "before")
    first = look(server, "web")
    before = taken(server, "web", "before")
    assert before.memory
    assert 0 < before.pause.ToNanoseconds() < 30e9
    now = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
    assert (now.pid, now.boot_id) == (web.pid, web.boot_id), "it goes on"
    assert look(server, "web")["sleeper"] == "goes on"
    mark(server, "web", "after")

    forks = list(server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="before", count=5, name="try-{}")).vms)
    with ThreadPoolExecutor(5) as pool:
        seen = list(pool.map(lambda vm: look(server, vm.name), forks))
    for vm, told in zip(forks, seen, strict=True):
        assert (told["on_disk"], told["in_memory"], told["sleeper"]) == ("before", "before", "goes on")
        assert told["etc_hostname"] == told["hostname"] == vm.name
    everyone = [first, *seen]
    for own in ("machine_id", "random", "hostname"):
        assert len({told[own] for told in everyone}) == 6, own
    assert max(int(told["time"]) for told in seen) - min(int(told["time"]) for told in seen) < 60
    mark(server, "try-1", "mine")
    assert look(server, "try-2")["on_disk"] == "before"
    for vm in forks[1:]:
        delete(server, vm.id)

    assert look(server, "web")["on_disk"] == "after"
    back = restored(server, "web", "before")
    told = look(server, "web")
    assert (back.id, told["on_disk"], told["in_memory"], told["sleeper"]) == (web.id, "before", "before", "goes on")
    assert (told["hostname"], told["machine_id"]) == ("web", first["machine_id"])
    shell(server, "web", "sync; echo more >/root/more; sync")

    # A snapshot of what rests on a snapshot, and forks of that.
    second = taken(server, "try-1", "second")
    assert second.parent_id == before.id
    remove(server, "before")
    assert [snapshot.name for snapshot in server.snapshot_list()] == ["", "second"], "what rests on it is as it was"
    (fork,) = server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="second", name="grandchild")).vms
    assert (look(server, fork.name)["on_disk"], look(server, fork.name)["sleeper"]) == ("mine", "goes on")
    server.vms.StopVm(vm_pb2.StopVmRequest(vm=fork.name))
    server.vms.StartVm(vm_pb2.StartVmRequest(vm=fork.name))
    assert shell(server, fork.name, "cat /root/on-disk; hostname") == "mine\ngrandchild\n", "it boots as well"


def test_each_of_a_chain_has_the_memory_and_the_disk_of_its_instant_whatever_goes(server: Server) -> None:
    create(server, "web")
    shell(server, "web", "setsid sleep 100000 >/dev/null 2>&1 & echo $! >/run/sleeper")
    made = []
    for word in ("full", "diff", "diff-of-diff"):
        mark(server, "web", word)
        shell(server, "web", "head -c 3000000 /dev/urandom >/root/$1; cp /root/$1 /run/$1; sync", word)
        made.append(taken(server, "web", word))
    full, diff, last = made
    assert [each.depth for each in made] == [0, 1, 2]
    assert max(diff.size_bytes, last.size_bytes) < full.size_bytes / 2
    directory = server.state / "snapshots" / last.id
    assert (directory / "memory" / "ram.delta").exists()

    def has(snapshot: str, *words: str) -> None:
        """What starts of it, and what boots from its disk."""
        (fork,) = server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot=snapshot)).vms
        told = look(server, fork.id)
        assert (told["on_disk"], told["in_memory"], told["sleeper"]) == (words[-1], words[-1], "goes on")
        shell(server, fork.id, 'for word; do cmp "/root/$word" "/run/$word" || exit 1; done', *words)
        server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=fork.id))
        assert shell(server, fork.id, "cat /root/on-disk").strip() == words[-1]
        delete(server, fork.id)

    has("diff-of-diff", "full", "diff", "diff-of-diff")
    assert not (directory / "whole").exists()
    one, two = server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="diff-of-diff", count=2)).vms
    ram = directory / "whole" / "memory" / "ram"
    for vm in (one, two):
        assert str(ram) in Path(f"/proc/{vm.pid}/maps").read_text(), "they have the same pages"
    remove(server, "diff")
    flat = server.snapshots.FlattenSnapshot(snapshot_pb2.FlattenSnapshotRequest(snapshot="diff-of-diff")).snapshot
    assert (flat.depth, flat.parent_id) == (0, "")
    assert [each.name for each in server.snapshot_list()] == ["full", "diff-of-diff"], "what only it needed is gone"
    for vm in (one, two):
        assert look(server, vm.id)["sleeper"] == "goes on"
        delete(server, vm.id)
    restored(server, "web", "full")
    assert look(server, "web")["in_memory"] == "full"
    mark(server, "web", "branch")
    branch = taken(server, "web", "branch", parent="full")
    assert branch.parent_id == full.id
    remove(server, "full")
    delete(server, "web")
    told = look(server, server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="branch", name="twig")).vms[0].id)
    assert (told["on_disk"], told["in_memory"], told["sleeper"]) == ("branch", "branch", "goes on")
    has("diff-of-diff", "full", "diff", "diff-of-diff")


def test_a_guest_goes_on_from_a_snapshot_that_was_exported_and_imported(server: Server) -> None:
    create(server, "web")
    shell(server, "web", "setsid sleep 100000 >/dev/null 2>&1 & echo $! >/run/sleeper")
    mark(server, "web", "before")
    taken(server, "web", "before")
    request = snapshot_pb2.ExportSnapshotRequest(snapshot="before")
    archive = b"".join(answer.data for answer in server.snapshots.ExportSnapshot(request))
    delete(server, "web")
    remove(server, "before")

    def upload() -> Iterator[snapshot_pb2.ImportSnapshotRequest]:
        yield snapshot_pb2.ImportSnapshotRequest(start=snapshot_pb2.ImportSnapshotStart())
        for at in range(0, len(archive), 1 << 19):
            yield snapshot_pb2.ImportSnapshotRequest(data=archive[at : at + (1 << 19)])
        yield snapshot_pb2.ImportSnapshotRequest(end=UploadEnd())

    again = server.snapshots.ImportSnapshot(upload()).snapshot
    assert (again.name, again.memory) == ("before", True)
    (fork,) = server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="before")).vms
    told = look(server, fork.id)
    assert (told["on_disk"], told["in_memory"], told["sleeper"]) == ("before", "before", "goes on")
    (cold,) = server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="before", cold=True)).vms
    assert shell(server, cold.id, "cat /root/on-disk") == "before\n"


def test_a_fork_of_a_vm_at_this_instant_takes_its_snapshot_along(server: Server) -> None:
    create(server, "web")
    shell(server, "web", "setsid sleep 100000 >/dev/null 2>&1 & echo $! >/run/sleeper")
    mark(server, "web", "now")
    answer = server.vms.ForkVm(vm_pb2.ForkVmRequest(vm="web", count=2, name="try-{}"))
    assert answer.pause.ToNanoseconds() > 0
    for name in ("web", "try-1", "try-2"):
        told = look(server, name)
        assert (told["in_memory"], told["on_disk"], told["hostname"]) == ("now", "now", name)
    delete(server, "web")
    delete(server, "try-1")
    assert look(server, "try-2")["sleeper"] == "goes on"
    delete(server, "try-2")
    assert server.snapshot_list() == []


def test_a_disk_is_kept_of_a_vm_that_runs_and_of_one_that_is_stopped(server: Server) -> None:
    create(server, "web")
    shell(server, "web", "echo running >/root/on-disk")  # which nobody has synced
    running = taken(server, "web", "running", disk_only=True)
    assert not running.memory
    server.vms.StopVm(vm_pb2.StopVmRequest(vm="web"))
    stopped = taken(server, "web", "stopped")
    assert (stopped.memory, stopped.pause.ToNanoseconds()) == (False, 0)
    server.vms.StartVm(vm_pb2.StartVmRequest(vm="web"))
    shell(server, "web", "echo later >/root/on-disk; sync")
    (fork,) = server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="running", name="fork")).vms
    assert shell(server, "fork", "cat /root/on-disk; hostname") == "running\nfork\n"
    assert fork.boot_id != restored(server, "web", "stopped").boot_id
    assert shell(server, "web", "cat /root/on-disk") == "running\n"


def flipped(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_nothing_is_started_of_a_memory_that_is_not_what_it_was(server: Server, kind: EngineKind) -> None:
    create(server, "web")
    before = taken(server, "web", "before")
    directory = server.state / "snapshots" / before.id
    files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    (disk,) = (name for name in files if name.startswith("disk."))
    assert files == sorted([disk, "manifest.json", "memory/seal", *(f"memory/{name}" for name in kind.shared)])
    for name in files:
        flipped(directory / name)
        refusal = refused(server.vms.ForkVm, vm_pb2.ForkVmRequest(snapshot="before"))
        assert refusal.reason == "SNAPSHOT_INVALID", name
        flipped(directory / name)
    assert shell(server, server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="before")).vms[0].id, "echo well") == "well\n"
    os.truncate(directory / "memory" / "ram", 4096)
    assert refused(restored, server, "web", "before").reason == "SNAPSHOT_INVALID"
    assert shell(server, "web", "echo well") == "well\n"
