"""Something fails in the middle of a snapshot: its guest goes on if there is one, and nothing of it is left."""

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from contract.test_engines import create, delete
from contract.test_sleep import PAUSED, RUNNING, hibernate, pause
from contract.test_snapshots import disk, ingle, marker, remove, taken, write
from harness import Server, no_process_left, nothing_left, refused, server_directory
from ingle.testing import made_up
from ingle.testing.fake_vmm import RAM_FILE
from ingle.v1 import vm_pb2
from small_disk import fill, make_room, small_disk
from uploading import image_upload, kernel_upload


@contextmanager
def failing_server(root: Path, how: str) -> Iterator[Server]:
    server = Server(root, {"PYTHONPATH": os.pathsep.join(sys.path), "FAILS_BY": how})
    server.argv = [sys.executable, "-m", "contract.failing_server", "red", "serve"]
    server.start()
    try:
        (root / "tree").mkdir()
        (root / "tree" / "file").write_text("all that an image needs")
        server.images.RegisterImage(image_upload("tiny", root / "tree"))
        server.kernels.ImportKernel(kernel_upload("made-up", made_up.VMLINUX))
        yield server
        taken(server, "web", "now")
        remove(server, "now")
        delete(server, "web")
        nothing_left(server)
    finally:
        for vm in server.list():
            delete(server, vm.id)
        assert server.stop() == 0, server.said()
        no_process_left(server)


def nothing_of_it(server: Server) -> None:
    assert server.snapshot_list() == []
    assert [*(server.state / "snapshots").iterdir()] == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_a_snapshot_that_finds_no_room_leaves_a_guest_that_goes_on() -> None:
    with (
        server_directory() as root,
        small_disk(root / "state", "900m") as state,
        failing_server(root, "full") as server,
    ):
        web = create(server, "web", "red", memory_bytes=2**28)
        refusal = refused(taken, server, "web", "never")
        assert refusal.reason == "DISK_FULL", refusal
        assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")
        now = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
        assert (now.pid, now.state) == (web.pid, vm_pb2.VM_STATE_RUNNING)
        nothing_of_it(server)
        make_room(state)


def test_a_vmm_that_dies_for_a_snapshot_is_told_and_started_again() -> None:
    with server_directory() as root, failing_server(root, "killed") as server:
        create(server, "web", "red")
        assert refused(taken, server, "web", "never").reason == "VMM_FAILED"
        nothing_of_it(server)
        while server.list()[0].state != vm_pb2.VM_STATE_ERROR:
            time.sleep(0.02)
        server.vms.StartVm(vm_pb2.StartVmRequest(vm="web"))


@pytest.mark.parametrize("led_on_by", ["resume", "restart", "the next server"])
def test_a_guest_that_does_not_answer_when_it_is_to_go_on_leads_on(led_on_by: str) -> None:
    with server_directory() as root, failing_server(root, "silent") as server:
        create(server, "web", "red")
        made = ingle(server, "snapshot", "create", "web", "before")
        assert (made.stdout, "web: a snapshot was taken of it, and its agent does not answer" in made.stderr) == (
            "before\n",
            True,
        )
        assert server.snapshot_list()[0].memory, "it is whole"
        web = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
        assert web.state == vm_pb2.VM_STATE_RUNNING
        assert "its programs may stand still" in web.sleep_error
        assert "ingle vm pause web, then ingle vm resume web" in web.sleep_error
        with sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True) as db:
            assert db.execute("SELECT * FROM journal").fetchall() == []
        if led_on_by == "restart":
            server.vms.RestartVm(vm_pb2.RestartVmRequest(vm="web", timeout=Duration(seconds=1)))
        else:
            if led_on_by == "the next server":
                assert server.stop() == 0, server.said()
                server.start()
            server.vms.PauseVm(vm_pb2.PauseVmRequest(vm="web"))
            server.vms.ResumeVm(vm_pb2.ResumeVmRequest(vm="web"))
        assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")
        assert server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm.sleep_error == ""
        (fork,) = server.vms.ForkVm(vm_pb2.ForkVmRequest(snapshot="before")).vms
        assert server.run(fork.id, "echo", "alive") == (0, b"alive\n", b"")
        delete(server, fork.id)
        remove(server, "before")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
@pytest.mark.parametrize("runs", [True, False])
def test_a_vm_that_finds_no_room_to_be_put_back_is_what_it_was(*, runs: bool) -> None:
    with (
        server_directory() as root,
        small_disk(root / "state", "900m") as state,
        failing_server(root, "nothing") as server,
    ):
        web = create(server, "web", "red", memory_bytes=2**28)
        taken(server, "web", "before")
        write(server, web.id, b"now")
        if not runs:
            server.vms.StopVm(vm_pb2.StopVmRequest(vm="web"))
        was = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
        fill(state)
        refusal = refused(server.vms.RestoreVm, vm_pb2.RestoreVmRequest(vm="web", snapshot="before"))
        assert refusal.reason == "DISK_FULL", refusal
        now = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
        make_room(state)
        held = marker(disk(server, web.id))
        remove(server, "before")
        assert (now.pid, now.state, now.snapshot_id, held) == (was.pid, was.state, "", b"now")


@pytest.mark.parametrize("before", ["running", "paused", "hibernated", "stopped"])
def test_a_vm_whose_guest_stays_who_it_was_in_the_snapshot_is_what_it_was(before: str) -> None:
    with server_directory() as root, failing_server(root, "stubborn") as server:
        web = create(server, "web", "red", memory_bytes=2**28)
        taken(server, "web", "before")
        write(server, web.id, b"now")
        ram = server.state / "vms" / web.id / RAM_FILE
        server.vms.StopVm(vm_pb2.StopVmRequest(vm="web"))
        server.vms.UpdateVm(_more_memory())
        if before != "stopped":
            server.vms.StartVm(vm_pb2.StartVmRequest(vm="web"))
            ram.write_bytes(b"of now")
        if before in {"paused", "hibernated"}:
            {"paused": pause, "hibernated": hibernate}[before](server, web)
        was = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
        refusal = refused(server.vms.RestoreVm, vm_pb2.RestoreVmRequest(vm="web", snapshot="before"))
        assert (refusal.reason, "it stays who it is" in refusal.message) == ("GUEST_UNREACHABLE", True)
        now = server.vms.GetVm(vm_pb2.GetVmRequest(vm="web")).vm
        assert marker(disk(server, web.id)) == b"now"
        assert (now.memory_bytes, now.snapshot_id) == (was.memory_bytes, "")
        assert now.state == {PAUSED: RUNNING}.get(was.state, was.state)
        assert not list((server.state / "vms" / web.id).glob("*disk*-*"))
        assert server.snapshot_list()[0].used_by == []
        server.vms.StartVm(vm_pb2.StartVmRequest(vm="web"))
        assert server.run("web", "echo", "alive") == (0, b"alive\n", b"")
        if before == "hibernated":
            assert ram.read_bytes() == b"of now", "it has woken"
        remove(server, "before")


def _more_memory() -> vm_pb2.UpdateVmRequest:
    request = vm_pb2.UpdateVmRequest(vm="web", spec=vm_pb2.VmSpec(memory_bytes=2**28 + 2**24))
    request.update_mask.paths.append("memory_bytes")
    return request
