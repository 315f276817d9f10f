"""Whatever kills the server, whenever: the next one leaves nothing behind and loses nothing."""

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from harness import NewServer, Server, cloned_directory, nothing_left, refused, running_server
from ingle.v1 import guest_pb2, operation_pb2, system_pb2, vm_pb2
from slow import mostly_slow

KILLING = str(Path(__file__).with_name("killing_server.py"))

# reserve, state directory, root disk, claim, acceleration, runtime directory, network, attach, initramfs, launch,
# boot, agent, identity, record
CREATE_STEPS = 14


@pytest.mark.parametrize("before", mostly_slow(range(CREATE_STEPS + 1), 0, 5, 9, 12))
def test_killed_before_any_step_of_a_create_nothing_is_left_and_the_name_is_free(prepared: Path, before: int) -> None:
    with cloned_directory(prepared) as root:
        doomed = Server(root, {"KILL_BEFORE": str(before)})
        doomed.argv = [sys.executable, KILLING]
        doomed.start()
        with pytest.raises(grpc.RpcError):
            doomed.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="doomed")))
        assert doomed.process is not None
        assert doomed.process.wait(30) == -signal.SIGKILL
        with running_server(root) as server:
            creation, *_ = server.operations.ListOperations(operation_pb2.ListOperationsRequest()).operations
            succeeded = creation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
            assert succeeded == (before == CREATE_STEPS), creation
            if before == CREATE_STEPS:  # complete: it must have been kept, and running
                vm = server.vms.GetVm(vm_pb2.GetVmRequest(vm="doomed")).vm
                assert server.run(vm.id, "true")[0] == 0
                server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
            nothing_left(server)
            server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="doomed"), no_start=True))


# start: claim, acceleration, runtime directory, network, attach, initramfs, launch, boot, agent, identity, record
@pytest.mark.parametrize("before", mostly_slow([0, 1, 6, 7, 10], 1, 7))
def test_killed_before_a_step_of_a_start_the_vm_is_stopped_and_starts_again(prepared: Path, before: int) -> None:
    with cloned_directory(prepared) as root:
        with running_server(root) as server:
            server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="kept"), no_start=True))
            assert server.stop() == 0
        doomed = Server(root, {"KILL_BEFORE": str(before)})
        doomed.argv = [sys.executable, KILLING]
        doomed.start()
        with pytest.raises(grpc.RpcError):
            doomed.vms.StartVm(vm_pb2.StartVmRequest(vm="kept"))
        assert doomed.process is not None
        doomed.process.wait(30)
        with running_server(root) as server:
            assert [vm.state for vm in server.list()] == [vm_pb2.VM_STATE_STOPPED]
            assert server.vmm_processes() == {}
            assert server.vms.StartVm(vm_pb2.StartVmRequest(vm="kept")).vm.state == vm_pb2.VM_STATE_RUNNING


@pytest.mark.parametrize("tenth", mostly_slow(range(10), 3, 8))
def test_killed_at_ten_instants_of_a_create_nothing_is_left(prepared: Path, tenth: int) -> None:
    """By the clock this time: inside steps as well as between them."""
    with cloned_directory(prepared) as root:
        doomed = Server(root).start()
        creating = threading.Thread(target=_create_in_vain, args=(doomed,))
        creating.start()
        time.sleep(0.15 * tenth)
        doomed.kill()
        creating.join()
        with running_server(root) as server:
            for vm in server.list():  # the late ones may have been complete, which is right too
                assert vm.state == vm_pb2.VM_STATE_RUNNING
                server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
            nothing_left(server)


def _create_in_vain(server: Server) -> None:
    try:
        server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="doomed")))
    except (grpc.RpcError, ValueError):
        return


# change settings, grow disk
@pytest.mark.parametrize("before", mostly_slow(range(3), 1))
def test_killed_before_any_step_of_a_change_it_is_whole_and_the_vm_starts(prepared: Path, before: int) -> None:
    with cloned_directory(prepared) as root:
        with running_server(root) as server:
            server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="plain"), no_start=True))
            assert server.stop() == 0
        doomed = Server(root, {"KILL_BEFORE": str(before)})
        doomed.argv = [sys.executable, KILLING]
        doomed.start()
        spec = vm_pb2.VmSpec(name="grown", disk_bytes=11 * 2**30)
        mask = FieldMask(paths=["name", "disk_bytes"])
        with pytest.raises(grpc.RpcError):
            doomed.vms.UpdateVm(vm_pb2.UpdateVmRequest(vm="plain", spec=spec, update_mask=mask))
        assert doomed.process is not None
        assert doomed.process.wait(30) == -signal.SIGKILL
        with running_server(root) as server:
            (vm,) = server.list()
            changed = before > 0  # as soon as the store has it
            assert (vm.name, vm.disk_bytes == 11 * 2**30) == (("grown", True) if changed else ("plain", False))
            change, *_ = server.operations.ListOperations(operation_pb2.ListOperationsRequest()).operations
            assert (change.state == operation_pb2.OPERATION_STATE_SUCCEEDED) == changed
            server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id))
            size = server.run(vm.id, "sh", "-c", "df -B1 --output=size / | tail -1")[1].decode()
            assert (int(size) > 10 * 2**30) == changed


def test_killed_in_the_middle_of_a_delete_the_next_server_completes_it(prepared: Path) -> None:
    with cloned_directory(prepared) as root:
        with running_server(root) as server:
            server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="half"), no_start=True))
            server.stop()
        doomed = Server(root, {"KILL_BEFORE": "0"})
        doomed.argv = [sys.executable, KILLING]
        doomed.start()
        with pytest.raises(grpc.RpcError):
            doomed.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="half"))
        assert doomed.process is not None
        doomed.process.wait(30)
        with running_server(root) as server:
            nothing_left(server)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_vms_survive_a_server_restart_and_are_adopted(new_server: NewServer, how: str) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    boot_id = server.run(vm.id, "cat", "/proc/sys/kernel/random/boot_id")[1].decode().strip()
    assert boot_id == vm.boot_id
    getattr(server, how)()
    os.kill(vm.pid, 0)
    server.start()
    again = server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm
    assert again == vm
    assert server.run(vm.id, "cat", "/proc/sys/kernel/random/boot_id")[1].decode().strip() == boot_id
    assert server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id)).vm.state == vm_pb2.VM_STATE_STOPPED


def test_a_vmm_that_died_while_no_server_was_there_is_told_and_starts_again(new_server: NewServer) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    server.stop()
    os.kill(vm.pid, signal.SIGKILL)
    server.start()
    dead = server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm
    assert dead.state == vm_pb2.VM_STATE_ERROR
    assert "no server was there" in dead.error
    assert server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm.boot_id != vm.boot_id


def test_an_interrupted_operation_is_told_as_failed(prepared: Path) -> None:
    with cloned_directory(prepared) as root:
        doomed = Server(root).start()
        begun = doomed.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest()).operation_id
        doomed.kill()
        with running_server(root) as server:
            request = operation_pb2.GetOperationRequest(operation_id=begun)
            operation = server.operations.GetOperation(request).operation
            assert operation.state == operation_pb2.OPERATION_STATE_FAILED
            assert "undid" in operation.error.message
            nothing_left(server)


def test_a_stopping_server_cancels_and_undoes_what_is_under_way(new_server: NewServer) -> None:
    server = new_server()
    slow_to_start = vm_pb2.VmSpec(boot_mode=vm_pb2.BOOT_MODE_COLD)
    server.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=slow_to_start))
    time.sleep(0.5)
    assert server.stop() == 0
    server.start()
    nothing_left(server)


def test_a_stopping_server_still_deletes_the_vm_of_a_call_that_said_so(new_server: NewServer) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sleep", "1000"], delete_vm=True)
    call = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
    assert next(call).HasField("started")
    assert server.stop() == 0
    server.start()
    nothing_left(server)


def test_a_stopping_server_tells_every_call_why_and_waits_only_for_those_that_may_end(new_server: NewServer) -> None:
    server = new_server()
    spec = vm_pb2.VmSpec(boot_mode=vm_pb2.BOOT_MODE_COLD)  # which has its console say something
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sleep", "1000"])
    command = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
    assert next(command).HasField("started")
    logs = server.vms.StreamVmLogs(vm_pb2.StreamVmLogsRequest(vm=vm.id, follow=True))
    assert next(logs).data
    attach = guest_pb2.AttachSessionStart(vm=vm.id, session_id="init", create=guest_pb2.SessionProgram())
    shell = server.guest.AttachSession(iter([guest_pb2.AttachSessionRequest(start=attach)]))
    assert next(shell).HasField("attached")
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    assert refused(list, logs).reason == "SERVER_STOPPING"
    assert refused(list, shell).reason == "SERVER_STOPPING"
    assert command.is_active()
    error = refused(list, command)
    assert error.reason == "SERVER_STOPPING"
    assert "try again" in error.remedy
    assert server.process.wait(60) == 0
    server.start()
    assert server.list() == [vm]


def test_stale_sockets_of_a_killed_server_do_not_matter(new_server: NewServer) -> None:
    server = new_server()
    server.kill()
    assert server.socket.exists()
    server.start()
    assert refused(server.vms.GetVm, vm_pb2.GetVmRequest(vm="x")).reason == "VM_NOT_FOUND"


def test_a_vmm_that_lives_but_does_not_answer_is_never_taken_for_dead(new_server: NewServer) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    server.stop()
    os.kill(vm.pid, signal.SIGSTOP)
    server.start()
    assert server.list() == [vm]
    assert "does not answer" in server.vms.GetVmHealth(vm_pb2.GetVmHealthRequest(vm=vm.id)).problem
    assert "does not answer" in refused(server.vms.StopVm, vm_pb2.StopVmRequest(vm=vm.id)).message
    server.stop()
    os.kill(vm.pid, signal.SIGCONT)
    server.start()
    assert server.run(vm.id, "cat", "/proc/sys/kernel/random/boot_id")[1].decode().strip() == vm.boot_id


def test_vms_survive_without_their_runtime_directory_and_so_does_a_new_server(new_server: NewServer) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    shutil.rmtree(server.socket.parent.parent)
    while not server.socket.exists():
        time.sleep(0.05)
    assert server.run(vm.id, "echo", "still here")[1] == b"still here\n"
    server.kill()
    shutil.rmtree(server.socket.parent.parent)
    (server.root / "run").mkdir(mode=0o700)
    server.start()
    assert server.run(vm.id, "echo", "still here")[1] == b"still here\n"
    shutil.rmtree(server.socket.parent)
    while not server.socket.exists():
        time.sleep(0.05)
    assert server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id), wait_for_ready=True).vm.state == vm_pb2.VM_STATE_STOPPED
    assert server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm.state == vm_pb2.VM_STATE_RUNNING


def test_vms_of_a_database_that_was_deleted_are_told_with_what_ends_them(new_server: NewServer) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    server.kill()
    for file in server.state.glob("ingle.db*"):
        file.unlink()
    server.start()
    assert server.list() == []
    assert f"{vm.id} (pid {vm.pid}): running, and the database does not know" in server.log.read_text()
    checks = {check.name: check for check in server.system.Examine(system_pb2.ExamineRequest()).checks}
    assert vm.id in checks["unknown VMs"].detail
    pid = os.pidfd_open(vm.pid)
    subprocess.run(["sh", "-c", checks["unknown VMs"].remedy], check=True)
    assert select.select([pid], [], [], 30)[0]
    os.close(pid)
    checks = {check.name: check for check in server.system.Examine(system_pb2.ExamineRequest()).checks}
    assert checks["unknown VMs"].status == system_pb2.CHECK_STATUS_PASS
    assert (server.state / "vms" / vm.id).is_dir(), "its disk may be all that is left of it"
