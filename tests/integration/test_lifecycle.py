"""A VM's life, in real VMs."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from harness import NewServer, Server, nothing_left, refused
from ingle.v1 import guest_pb2, image_pb2, kernel_pb2, operation_pb2, vm_pb2

MIB = 2**20
SLOW_TO_START = vm_pb2.VmSpec(boot_mode=vm_pb2.BOOT_MODE_COLD)


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def operations(server: Server) -> list[operation_pb2.Operation]:
    """Newest first."""
    return list(server.operations.ListOperations(operation_pb2.ListOperationsRequest()).operations)


def allocated(server: Server, vm: vm_pb2.Vm) -> int:
    return server.vms.GetVmStats(vm_pb2.GetVmStatsRequest(vm=vm.id)).vmm.disk_allocated_bytes


def state(server: Server, vm: vm_pb2.Vm) -> int:
    return server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.state


def test_a_created_vm_is_what_was_asked_for(server: Server) -> None:
    spec = vm_pb2.VmSpec(
        name="asked-for", vcpus=2, memory_bytes=384 * MIB, disk_bytes=3 * 2**30, env={"COLOUR": "blue green"}
    )
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    try:
        assert vm.state == vm_pb2.VM_STATE_RUNNING
        script = (
            "hostname; nproc; awk '/MemTotal/ {print $2}' /proc/meminfo; df -B1 --output=size / | tail -1; echo $COLOUR"
        )
        code, out, _ = server.run(vm.id, "sh", "-c", script)
        hostname, cpus, memory, disk, colour = out.decode().splitlines()
        assert (code, hostname, cpus, colour) == (0, "asked-for", "2", "blue green")
        assert 300 * 1024 < int(memory) < 384 * 1024
        assert 2.7 * 2**30 < int(disk) < 3 * 2**30
    finally:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm="asked-for", force=True))


def test_stop_start_restart_and_kill(server: Server, vm: vm_pb2.Vm) -> None:
    server.run(vm.id, "sh", "-c", "echo kept > /root/file")
    stopped = server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.name)).vm
    assert stopped.state == vm_pb2.VM_STATE_STOPPED
    assert stopped.pid == 0
    with pytest.raises(ProcessLookupError):
        os.kill(vm.pid, 0)
    started = server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm
    assert started.boot_id != vm.boot_id
    assert server.run(vm.id, "cat", "/root/file")[1] == b"kept\n"
    restarted = server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id)).vm
    assert restarted.boot_id not in (vm.boot_id, started.boot_id)
    killed = server.vms.KillVm(vm_pb2.KillVmRequest(vm=vm.id)).vm
    assert killed.state == vm_pb2.VM_STATE_STOPPED
    with pytest.raises(ProcessLookupError):
        os.kill(restarted.pid, 0)


def test_many_starts_at_once_launch_one_vmm(server: Server, vm: vm_pb2.Vm) -> None:
    server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm, range(8)))
    assert len({answer.pid for answer in answers}) == 1
    assert sum(vm.id in line for line in server.vmm_processes().values()) == 1


def test_two_creates_at_once_both_work(server: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        vms = list(pool.map(lambda _: server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm, range(2)))
        outputs = list(pool.map(lambda vm: server.run(vm.id, "hostname")[1].decode().strip(), vms))
        assert outputs == [vm.name for vm in vms]
        list(pool.map(lambda vm: server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True)), vms))


def test_create_without_start_makes_a_stopped_vm_and_delete_removes_all_of_it(new_server: NewServer) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(no_start=True)).vm
    assert vm.state == vm_pb2.VM_STATE_STOPPED
    assert server.vmm_processes() == {}
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id))
    nothing_left(server)


def test_the_vmm_of_a_deleted_vm_is_reaped(server: Server) -> None:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
    assert not os.path.exists(f"/proc/{vm.pid}")


def test_the_least_memory_that_is_allowed_boots_and_less_is_refused(server: Server) -> None:
    error = refused(server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(memory_bytes=64 * 2**20)))
    assert "needs at least" in error.message
    least = int(error.remedy.removeprefix("--memory ").removesuffix("M")) * 2**20
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(memory_bytes=least))).vm
    assert server.run(vm.id, "echo", "enough") == (0, b"enough\n", b"")
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def test_a_disk_smaller_than_the_image_is_refused(server: Server) -> None:
    spec = vm_pb2.VmSpec(disk_bytes=10 * MIB)
    assert "--disk-size" in refused(server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=spec)).remedy


SYSVINIT = r"{ printf '\151\031\011\003\001\000\000\000\060\000\000\000'; head -c 372 /dev/zero; } >/run/initctl"


@pytest.mark.parametrize("how", ["poweroff", SYSVINIT])
def test_a_guest_that_powers_off_is_stopped(server: Server, vm: vm_pb2.Vm, how: str) -> None:
    with suppress(grpc.RpcError):  # the command goes down with its machine
        server.run(vm.id, "sh", "-c", f"{how}; sleep 100")
    wait_for(lambda: state(server, vm) == vm_pb2.VM_STATE_STOPPED)
    assert server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm.state == vm_pb2.VM_STATE_RUNNING


def test_a_guest_that_reboots_is_started_again(server: Server, vm: vm_pb2.Vm) -> None:
    with suppress(grpc.RpcError):
        server.run(vm.id, "sh", "-c", "reboot; sleep 100")
    wait_for(lambda: operations(server)[0].kind == operation_pb2.OPERATION_KIND_RESTART_VM)
    wait_for(lambda: state(server, vm) == vm_pb2.VM_STATE_RUNNING)
    again = server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm
    assert again.boot_id != vm.boot_id
    assert server.run(vm.id, "true")[0] == 0


def test_a_guest_whose_kernel_panics_is_an_error_with_the_reason_and_a_reboot_after_that_is_none(
    server: Server, vm: vm_pb2.Vm
) -> None:
    with suppress(grpc.RpcError):
        server.run(vm.id, "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 10")
    wait_for(lambda: state(server, vm) == vm_pb2.VM_STATE_ERROR)
    error = server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.error
    assert error == "the guest's kernel panicked: sysrq triggered crash"
    server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id))
    with suppress(grpc.RpcError):
        server.run(vm.id, "sh", "-c", "echo b >/proc/sysrq-trigger; sleep 10")
    wait_for(lambda: operations(server)[0].kind == operation_pb2.OPERATION_KIND_RESTART_VM)
    wait_for(lambda: state(server, vm) == vm_pb2.VM_STATE_RUNNING)


def sleeping(server: Server, vm: vm_pb2.Vm, **fields: bool) -> "Iterator[guest_pb2.ExecResponse]":
    """The stream of a command that goes on, once it is under way."""
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sleep", "1000"], **fields)  # type: ignore[arg-type]
    call = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
    assert next(call).HasField("started")
    return call


def test_a_command_whose_vm_goes_says_how_it_went(server: Server) -> None:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    for end in (
        lambda: server.vms.KillVm(vm_pb2.KillVmRequest(vm=vm.id)),
        lambda: server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id)),
    ):
        command = sleeping(server, server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm)
        end()
        error = refused(list, command)
        assert error.reason == "VM_ENDED"
        assert f"VM '{vm.name}' was stopped" in error.message
        assert error.remedy == f"ingle vm start {vm.name}"
    command = sleeping(server, server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm)
    os.kill(server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.pid, signal.SIGKILL)
    error = refused(list, command)
    assert error.reason == "VM_ENDED"
    assert "signal 9" in error.message
    command = sleeping(server, server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm)
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
    error = refused(list, command)
    assert error.reason == "VM_ENDED"
    assert "was deleted" in error.message


def test_a_vmm_that_is_killed_is_an_error_that_says_how(server: Server, vm: vm_pb2.Vm) -> None:
    os.kill(vm.pid, signal.SIGKILL)
    wait_for(lambda: state(server, vm) == vm_pb2.VM_STATE_ERROR)
    dead = server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm
    assert "signal 9" in dead.error
    health = server.vms.GetVmHealth(vm_pb2.GetVmHealthRequest(vm=vm.id))
    assert not health.vmm_alive
    assert "signal 9" in health.problem


def test_a_new_name_is_the_guests_at_once(server: Server, vm: vm_pb2.Vm) -> None:
    spec = vm_pb2.VmSpec(name="renamed-alive")
    server.vms.UpdateVm(vm_pb2.UpdateVmRequest(vm=vm.id, spec=spec, update_mask=FieldMask(paths=["name"])))
    out = server.run(vm.id, "sh", "-c", "hostname; cat /etc/hostname; tail -n 1 /etc/hosts")[1].decode()
    assert out.splitlines() == ["renamed-alive", "renamed-alive", "10.0.2.15 renamed-alive # ingle"]


def test_settings_change_while_stopped_and_take_effect(server: Server, vm: vm_pb2.Vm) -> None:
    spec = vm_pb2.VmSpec(name="renamed", vcpus=2, memory_bytes=256 * MIB, disk_bytes=9 * 2**30)
    request = vm_pb2.UpdateVmRequest(
        vm=vm.id, spec=spec, update_mask=FieldMask(paths=["vcpus", "memory_bytes", "disk_bytes", "name"])
    )
    assert refused(server.vms.UpdateVm, request).reason == "WRONG_STATE"
    server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
    server.vms.UpdateVm(request)
    server.vms.StartVm(vm_pb2.StartVmRequest(vm="renamed"))
    out = server.run("renamed", "sh", "-c", "hostname; nproc; df -B1 --output=size / | tail -1")[1].decode().split()
    assert out[:2] == ["renamed", "2"]
    assert int(out[2]) > 8.5 * 2**30


@pytest.mark.parametrize(
    ("spec", "paths", "words"),
    [
        (vm_pb2.VmSpec(), [], "update_mask is empty"),
        (vm_pb2.VmSpec(), ["image"], "image can't be changed"),
        (vm_pb2.VmSpec(), ["vcpus"], "no value"),
        (vm_pb2.VmSpec(vcpus=0), ["vcpus"], "vcpu 0"),
        (vm_pb2.VmSpec(disk_bytes=1), ["disk_bytes"], "only grows"),
        (vm_pb2.VmSpec(name="Bad Name"), ["name"], "DNS label"),
        (vm_pb2.VmSpec(), ["name"], "DNS label"),
    ],
)
def test_a_bad_change_is_refused(server: Server, spec: vm_pb2.VmSpec, paths: list[str], words: str) -> None:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(no_start=True)).vm
    try:
        request = vm_pb2.UpdateVmRequest(vm=vm.id, spec=spec, update_mask=FieldMask(paths=paths))
        assert words in refused(server.vms.UpdateVm, request).message
        assert server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm == vm
    finally:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id))


def test_health_ping_and_stats_of_a_running_vm(server: Server, shared_vm: vm_pb2.Vm) -> None:
    health = server.vms.GetVmHealth(vm_pb2.GetVmHealthRequest(vm=shared_vm.id))
    assert (health.vmm_alive, health.agent_answers, health.problem) == (True, True, "")
    ping = server.vms.PingVm(vm_pb2.PingVmRequest(vm=shared_vm.id))
    assert 0 < ping.round_trip.ToMicroseconds() < 5_000_000
    stats = server.vms.GetVmStats(vm_pb2.GetVmStatsRequest(vm=shared_vm.id))
    assert stats.vmm.resident_bytes > 50 * MIB
    assert stats.vmm.cpu_time.ToMicroseconds() > 0
    assert stats.vmm.disk_allocated_bytes > 0
    before = stats.vmm.disk_traffic
    assert server.run(shared_vm.id, "sh", "-c", "head -c 3M /dev/urandom >/root/new; sync; rm /root/new")[0] == 0
    traffic = server.vms.GetVmStats(vm_pb2.GetVmStatsRequest(vm=shared_vm.id)).vmm.disk_traffic
    assert traffic.written_bytes >= before.written_bytes + 3 * MIB
    assert before.writes < traffic.writes < traffic.written_bytes / 512
    assert traffic.reads <= traffic.read_bytes / 512
    assert 0 < stats.guest.memory_available_bytes < stats.guest.memory_total_bytes < 512 * MIB
    assert 0 < stats.guest.disk_available_bytes < stats.guest.disk_total_bytes
    assert stats.guest.uptime.ToMicroseconds() > 0


def test_logs_hold_the_console_and_follow_it(server: Server, vm: vm_pb2.Vm) -> None:
    follow = server.vms.StreamVmLogs(vm_pb2.StreamVmLogsRequest(vm=vm.id, follow=True, tail_lines=0))
    server.run(vm.id, "sh", "-c", "echo first > /dev/console; echo second > /dev/console")
    seen = b""
    for response in follow:
        seen += response.data
        if b"second" in seen:
            break
    follow.cancel()
    whole = b"".join(response.data for response in server.vms.StreamVmLogs(vm_pb2.StreamVmLogsRequest(vm=vm.id)))
    assert b"first" in whole
    last = server.vms.StreamVmLogs(vm_pb2.StreamVmLogsRequest(vm=vm.id, tail_lines=1))
    assert b"".join(response.data for response in last).strip() == b"second"


def test_an_unknown_log_source_is_refused(server: Server, shared_vm: vm_pb2.Vm) -> None:
    request = vm_pb2.StreamVmLogsRequest(vm=shared_vm.id, source=7)  # type: ignore[arg-type] # that is the point
    assert refused(list, server.vms.StreamVmLogs(request)).reason == "INVALID_ARGUMENT"


STAGES = {
    vm_pb2.BOOT_MODE_COLD: ["initramfs", "launch", "boot", "agent", "identity"],
    vm_pb2.BOOT_MODE_AUTO: ["warm"],
}


@pytest.mark.parametrize("boot_mode", STAGES, ids=vm_pb2.BootMode.Name)
def test_begin_and_watch_tell_every_stage_in_order(server: Server, boot_mode: "vm_pb2.BootMode.ValueType") -> None:
    wish = vm_pb2.VmSpec(boot_mode=boot_mode)
    begun = server.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=wish)).operation_id
    watch = server.operations.WatchOperation(operation_pb2.WatchOperationRequest(operation_id=begun))
    seen = [response.operation for response in watch]
    final = seen[-1]
    assert final.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    assert [stage.name for stage in final.stages] == [
        *("reserve", "state-directory", "root-disk", "mark-starting", "acceleration", "runtime-directory"),
        *("network", "attach-disk", *STAGES[boot_mode], "record"),
    ]
    assert all(stage.HasField("finished_at") for stage in final.stages)
    assert final.kind == operation_pb2.OPERATION_KIND_CREATE_VM
    vm = server.vms.GetVm(vm_pb2.GetVmRequest(vm=final.target_id)).vm
    assert vm.state == vm_pb2.VM_STATE_RUNNING
    assert final.vm == vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
    request = operation_pb2.GetOperationRequest(operation_id=begun)
    assert server.operations.GetOperation(request).operation.WhichOneof("result") is None


def test_cancel_undoes_a_create_and_answers_when_it_is_undone(new_server: NewServer) -> None:
    server = new_server()
    begun = server.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=SLOW_TO_START)).operation_id
    time.sleep(0.6)
    cancelled = server.operations.CancelOperation(operation_pb2.CancelOperationRequest(operation_id=begun)).operation
    assert cancelled.state == operation_pb2.OPERATION_STATE_CANCELLED
    nothing_left(server)


def test_closing_a_plain_create_cancels_it(new_server: NewServer) -> None:
    server = new_server()
    call = server.vms.CreateVm.future(vm_pb2.CreateVmRequest(spec=SLOW_TO_START))
    wait_for(lambda: bool(server.vmm_processes()))
    call.cancel()
    wait_for(lambda: operations(server)[0].state == operation_pb2.OPERATION_STATE_CANCELLED)
    nothing_left(server)


def test_a_watcher_that_leaves_cancels_when_it_said_so(new_server: NewServer) -> None:
    server = new_server()
    begun = server.vms.BeginCreateVm(vm_pb2.BeginCreateVmRequest(spec=SLOW_TO_START)).operation_id
    request = operation_pb2.WatchOperationRequest(operation_id=begun, cancel_on_disconnect=True)
    watch = server.operations.WatchOperation(request)
    next(iter(watch))
    watch.cancel()
    wait_for(lambda: operations(server)[0].state == operation_pb2.OPERATION_STATE_CANCELLED)
    nothing_left(server)


def test_images_and_kernels_in_use_are_kept(server: Server, shared_vm: vm_pb2.Vm) -> None:
    for call, request in (
        (server.images.DeleteImage, image_pb2.DeleteImageRequest(image="debian:bookworm")),
        (server.kernels.DeleteKernel, kernel_pb2.DeleteKernelRequest(kernel="debian")),
    ):
        error = refused(call, request)
        assert error.reason == "IN_USE"
        assert shared_vm.name in error.message


@pytest.mark.parametrize("backend", ["qcow2", "copy"])
def test_every_disk_backend_boots_and_keeps_what_is_written(server: Server, backend: str) -> None:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(disk_backend=backend))).vm
    assert vm.disk_backend == backend
    server.run(vm.id, "sh", "-c", "echo kept > /root/file")
    server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id))
    assert server.run(vm.id, "cat", "/root/file")[1] == b"kept\n"
    assert server.run(vm.id, "sh", "-c", "head -c 64M /dev/urandom > /root/large && sync")[0] == 0
    full = allocated(server, vm)
    assert server.run(vm.id, "sh", "-c", "rm /root/large && sync")[0] == 0
    wait_for(lambda: allocated(server, vm) < full - 32 * MIB)  # what is deleted goes back to the host
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def test_a_guest_that_ignores_the_request_is_killed_after_the_timeout(server: Server, vm: vm_pb2.Vm) -> None:
    os.kill(vm.pid, signal.SIGSTOP)  # nothing in it can answer any more
    stopped = server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id, timeout=Duration(seconds=1))).vm
    assert stopped.state == vm_pb2.VM_STATE_STOPPED
    with pytest.raises(ProcessLookupError):
        os.kill(vm.pid, 0)


def test_exec_in_a_stopped_vm_is_refused(server: Server) -> None:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(no_start=True)).vm
    start = guest_pb2.ExecStart(vm=vm.id, argv=["true"])
    error = refused(list, server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)])))
    assert error.reason == "WRONG_STATE"
    assert "ingle vm start" in error.remedy
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id))
