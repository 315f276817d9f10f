"""Snapshots with the memory of guests, whose machine is a stand-in: what goes on from one, and what does not."""

import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract.test_engines import create
from contract.test_snapshots import disk, forks, marker, server, taken, write
from harness import Server, refused
from ingle.v1 import vm_pb2

__all__ = ["server"]  # the fixture


def test_a_snapshot_of_a_guest_that_runs_has_its_memory(server: Server) -> None:
    web = create(server, "web", "red")
    write(server, web.id, b"before")
    before = taken(server, "web", "before")
    directory = server.state / "snapshots" / before.id
    assert (before.memory, before.pause.ToNanoseconds() > 0) == (True, True)
    assert sorted(path.name for path in directory.rglob("*")) == ["disk.raw", "manifest.json", "memory", "memory"]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in directory.rglob("*")} == {0}
    assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")
    now = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
    assert (now.pid, now.boot_id, now.state) == (web.pid, web.boot_id, vm_pb2.VM_STATE_RUNNING)
    made = forks(server, snapshot="before", count=3)
    assert {vm.state for vm in made} == {vm_pb2.VM_STATE_RUNNING}
    for vm in made:
        assert server.run(vm.name, "echo", "alive") == (0, b"alive\n", b"")
    write(server, web.id, b"after")
    back = server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before")).vm
    assert (back.state, back.pid != web.pid) == (vm_pb2.VM_STATE_RUNNING, True)
    assert marker(disk(server, web.id)) == b"before"
    assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")


def test_a_fork_of_a_vm_that_runs_tells_how_long_that_stood_still(server: Server) -> None:
    create(server, "web", "red")
    answer = server.vms.ForkVm(vm_pb2.ForkVmRequest(vm="web", count=2))
    assert answer.pause.ToNanoseconds() > 0
    assert {vm.state for vm in (*answer.vms, *server.list())} == {vm_pb2.VM_STATE_RUNNING}
    (snapshot,) = server.snapshot_list()
    assert (snapshot.name, snapshot.memory, snapshot.pause) == ("", True, answer.pause)


def test_a_vm_that_is_stopped_is_put_back_into_the_middle_of_its_life(server: Server) -> None:
    create(server, "web", "red")
    taken(server, "web", "before")
    server.vms.StopVm(vm_pb2.StopVmRequest(vm="web"))
    back = server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before")).vm
    assert back.state == vm_pb2.VM_STATE_RUNNING
    assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")


@pytest.mark.parametrize("how", ["PauseVm", "HibernateVm"])
def test_a_vm_that_sleeps_wakes_to_be_kept_and_is_put_back(server: Server, how: str) -> None:
    web = create(server, "web", "red")
    write(server, web.id, b"before")
    sleep = getattr(server.vms, how)
    request = getattr(vm_pb2, f"{how}Request")(vm="web")
    sleep(request)
    assert taken(server, "web", "before").memory
    assert server.list()[0].state == vm_pb2.VM_STATE_RUNNING, "it was used"
    sleep(request)
    assert not taken(server, "web", "disk", disk_only=True).memory
    sleep(request)
    (fork,) = forks(server, vm="web")
    assert server.run(fork.name, "echo", "alive") == (0, b"alive\n", b"")
    write(server, web.id, b"after")
    sleep(request)
    back = server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm="web", snapshot="before")).vm
    assert (back.state, marker(disk(server, web.id))) == (vm_pb2.VM_STATE_RUNNING, b"before")
    assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")


def test_who_uses_a_guest_meanwhile_hears_nothing_of_it(server: Server) -> None:
    create(server, "web", "red")
    done = threading.Event()

    def use() -> int:
        used = 0
        while not done.is_set():
            assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")
            used += 1
        return used

    with ThreadPoolExecutor(3) as pool:
        users = [pool.submit(use) for _ in range(3)]
        try:
            for number in range(10):
                taken(server, "web", f"number-{number}")
        finally:
            done.set()
        assert all(user.result() > 10 for user in users)


def test_nothing_is_started_of_a_memory_of_another_engine_or_processor(server: Server) -> None:
    web = create(server, "web", "red")
    taken(server, "web", "before")
    with sqlite3.connect(server.state / "ingle.db") as db:
        db.execute("UPDATE snapshots SET memory_key = replace(memory_key, 'red 1.0', 'red 0.9')")
    restore = vm_pb2.RestoreVmRequest(vm="web", snapshot="before")
    for call, instead in (
        (lambda: forks(server, snapshot="before", name="never"), "fork --cold --snapshot before"),
        (lambda: server.vms.RestoreVm(restore), "restore --cold web before"),
    ):
        refusal = refused(call)
        assert refusal.reason == "SNAPSHOT_INCOMPATIBLE", refusal
        assert ("red 0.9" in refusal.message, "red 1.0" in refusal.message) == (True, True)
        assert refusal.remedy.endswith(f"or boot its disk: ingle vm {instead}")
    assert [(vm.name, vm.pid) for vm in server.list()] == [("web", web.pid)]
    restore.cold = True
    assert server.vms.RestoreVm(restore).vm.state == vm_pb2.VM_STATE_RUNNING
    assert forks(server, snapshot="before", cold=True)[0].state == vm_pb2.VM_STATE_RUNNING
