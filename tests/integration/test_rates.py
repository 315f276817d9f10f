"""What a real guest may read and write of its disk in a second: never more than its limit, whatever it began with.

No test says how fast a disk is: a limit is a most, whatever the machine is busy with."""

import time

import pytest

from harness import NewServer, Server, refused
from ingle.v1 import snapshot_pb2, vm_pb2

MIB = 1 << 20
RATE = 8 * MIB
WARM, COLD = vm_pb2.BOOT_MODE_WARM, vm_pb2.BOOT_MODE_COLD


@pytest.fixture
def server(new_server: NewServer) -> Server:
    return new_server()


def dd(server: Server, vm: vm_pb2.Vm, *operands: str) -> float:
    """Seconds that it takes, seen from outside."""
    began = time.monotonic()
    code, _, err = server.run(vm.id, "dd", *operands)
    assert code == 0, err.decode()
    return time.monotonic() - began


def written(server: Server, vm: vm_pb2.Vm) -> float:
    """Seconds for 24 MiB, past every cache of the guest's; a tenth of a second's worth is free."""
    return dd(server, vm, "if=/dev/zero", "of=/root/data", "bs=1M", "count=24", "oflag=direct")


def is_limited(server: Server, vm: vm_pb2.Vm) -> None:
    least = 24 * MIB / RATE - 0.2
    assert written(server, vm) >= least
    assert dd(server, vm, "if=/root/data", "of=/dev/null", "bs=1M", "iflag=direct") >= least


def changed(server: Server, vm: vm_pb2.Vm, **limits: int) -> vm_pb2.Vm:
    request = vm_pb2.UpdateVmRequest(vm=vm.id, spec=vm_pb2.VmSpec(**limits))  # type: ignore[arg-type]
    request.update_mask.paths.extend(limits)
    return server.vms.UpdateVm(request).vm


def test_a_limit_holds_however_a_guest_begins_and_changes_while_it_runs(server: Server) -> None:
    spec = vm_pb2.VmSpec(disk_bytes_per_second=RATE)
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    assert vm.boot_mode == WARM, "a memory is good for VMs with any limits"
    is_limited(server, vm)
    limited = written(server, vm)
    assert changed(server, vm, disk_bytes_per_second=0).disk_bytes_per_second == 0
    assert written(server, vm) < limited
    changed(server, vm, disk_bytes_per_second=RATE)
    is_limited(server, vm)

    again = server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id)).vm
    assert (again.boot_mode, again.disk_bytes_per_second) == (COLD, RATE)
    is_limited(server, vm)
    server.kill()
    server.start()
    is_limited(server, vm)


def test_one_that_sleeps_wakes_with_what_it_was_given_meanwhile_and_forks_have_it_too(server: Server) -> None:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm.id))
    changed(server, vm, disk_bytes_per_second=RATE)
    is_limited(server, vm)
    changed(server, vm, disk_bytes_per_second=0)
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    changed(server, vm, disk_bytes_per_second=RATE)
    is_limited(server, vm)

    (fork,) = server.vms.ForkVm(vm_pb2.ForkVmRequest(vm=vm.id, count=1)).vms
    assert fork.disk_bytes_per_second == RATE
    is_limited(server, fork)
    kept = server.snapshots.CreateSnapshot(snapshot_pb2.CreateSnapshotRequest(vm=vm.id, name="kept")).snapshot
    changed(server, vm, disk_bytes_per_second=0)
    assert server.vms.RestoreVm(vm_pb2.RestoreVmRequest(vm=vm.id, snapshot=kept.id)).vm.disk_bytes_per_second == 0
    changed(server, vm, disk_bytes_per_second=RATE)
    is_limited(server, vm)


def test_reads_and_writes_are_counted_whatever_their_size(server: Server) -> None:
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(disk_iops=100))).vm
    assert vm.disk_iops == 100
    assert dd(server, vm, "if=/dev/zero", "of=/root/data", "bs=4k", "count=250", "oflag=direct") >= 250 / 100 - 0.2


def test_a_network_of_a_vms_own_is_not_said_to_be_limited(server: Server) -> None:
    error = refused(server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(net_bytes_per_second=MIB)))
    assert "no network 'user': its VMM connects it, and nothing limits that" in error.message
    assert error.remedy == "sudo ingle system install"
    assert server.list() == []
