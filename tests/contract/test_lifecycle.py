"""What of a VM's life is no machine's: its engine is a stand-in. Real ones are in integration/test_lifecycle.py."""

from collections.abc import Iterator

import grpc
import pytest

from harness import Server, refused
from ingle.v1 import vm_pb2


@pytest.fixture
def vm(red_server: Server) -> Iterator[vm_pb2.Vm]:
    """A running VM."""
    spec = vm_pb2.VmSpec(engine="red", image="tiny", kernel="made-up")
    vm = red_server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    yield vm
    red_server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def test_stopping_the_stopped_and_starting_the_running_change_nothing(red_server: Server, vm: vm_pb2.Vm) -> None:
    assert red_server.vms.StartVm(vm_pb2.StartVmRequest(vm=vm.id)).vm == vm
    red_server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id))
    assert red_server.vms.StopVm(vm_pb2.StopVmRequest(vm=vm.id)).vm.state == vm_pb2.VM_STATE_STOPPED
    assert refused(red_server.vms.KillVm, vm_pb2.KillVmRequest(vm=vm.id)).reason == "WRONG_STATE"


def test_a_running_vm_is_deleted_only_by_force(red_server: Server, vm: vm_pb2.Vm) -> None:
    error = refused(red_server.vms.DeleteVm, vm_pb2.DeleteVmRequest(vm=vm.id))
    assert error.reason == "WRONG_STATE"
    assert "--force" in error.remedy
    assert red_server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.state == vm_pb2.VM_STATE_RUNNING


def test_a_taken_name_is_refused_and_nothing_is_stored(red_server: Server, vm: vm_pb2.Vm) -> None:
    count = len(red_server.list())
    error = refused(red_server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name=vm.name)))
    assert error.code is grpc.StatusCode.ALREADY_EXISTS
    assert error.reason == "NAME_TAKEN"
    assert len(red_server.list()) == count
