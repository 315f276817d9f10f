"""The disk of the host is full while a VM writes to its own."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Server, cloned_directory, refused, running_server
from ingle.v1 import guest_pb2, system_pb2, vm_pb2
from small_disk import fill, make_room, small_disk

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")

WRITE = "dd if=/dev/urandom of=/root/filler bs=1M count=16 oflag=direct status=none"


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _check(server: Server) -> system_pb2.Check:
    return next(check for check in server.system.Examine(system_pb2.ExamineRequest()).checks if check.name == "vms")


def _write(server: Server, vm: vm_pb2.Vm) -> object:
    """Begin to; the caller of a guest that stands still would wait."""
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sh", "-c", WRITE])
    return server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]), timeout=300)


def test_a_vm_that_stands_still_says_so_goes_on_when_there_is_room_and_can_be_stopped(prepared: Path) -> None:
    with (
        cloned_directory(prepared) as root,
        small_disk(root / "state" / "ingle" / "vms", "96m") as vms,
        running_server(root) as server,
    ):
        vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(disk_backend="qcow2"))).vm

        def problem() -> str:
            return server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.problem

        assert problem() == ""
        assert _check(server).status == system_pb2.CHECK_STATUS_PASS
        fill(vms)
        writing = _write(server, vm)
        _eventually(lambda: bool(problem()))
        assert "disk is full" in problem()
        assert server.list()[0].problem == problem()
        health = server.vms.GetVmHealth(vm_pb2.GetVmHealthRequest(vm=vm.id))
        assert (health.agent_answers, health.problem) == (False, problem())
        assert vm.name in _check(server).detail
        start = guest_pb2.ExecStart(vm=vm.id, argv=["true"])
        assert refused(list, server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))).reason == "DISK_FULL"
        assert server.vms.GetVmStats(vm_pb2.GetVmStatsRequest(vm=vm.id)).vmm.disk_allocated_bytes > 0
        assert _check(server).status == system_pb2.CHECK_STATUS_FAIL

        # A server that comes later finds out, though the event came before it was there.
        server.kill()
        server.start()
        assert "disk is full" in problem()
        make_room(vms)
        _eventually(lambda: not problem())
        assert server.run(vm.id, "true")[0] == 0
        assert "goes on" in server.log.read_text()

        fill(vms)
        writing = _write(server, vm)
        _eventually(lambda: bool(problem()))
        stopped = server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id)).vm
        assert (stopped.state, problem()) == (vm_pb2.VM_STATE_STOPPED, "")
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id))
        del writing
