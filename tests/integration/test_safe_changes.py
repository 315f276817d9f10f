"""Changes that can be sent again, and changes that meet no other's."""

import grpc

from harness import NewServer, refused
from ingle.v1 import operation_pb2, vm_pb2


def test_a_create_sent_again_is_the_same_vm_also_to_the_next_server(new_server: NewServer) -> None:
    server = new_server()
    request = vm_pb2.CreateVmRequest(no_start=True, request_id="a wish")
    vm = server.vms.CreateVm(request).vm
    begin = vm_pb2.BeginCreateVmRequest(no_start=True, request_id="a wish")
    server.stop()
    server.start()
    assert server.vms.CreateVm(request).vm.id == vm.id
    begun = operation_pb2.GetOperationRequest(operation_id=server.vms.BeginCreateVm(begin).operation_id)
    assert server.operations.GetOperation(begun).operation.vm.id == vm.id
    assert [each.id for each in server.list()] == [vm.id]
    request.spec.vcpus = 2
    assert refused(server.vms.CreateVm, request).reason == "INVALID_ARGUMENT"
    request.request_id = "another wish"
    assert server.vms.CreateVm(request).vm.id != vm.id


def test_a_change_of_a_vm_that_has_changed_meanwhile_changes_nothing(new_server: NewServer) -> None:
    server = new_server()
    seen = server.vms.CreateVm(vm_pb2.CreateVmRequest(no_start=True)).vm
    request = vm_pb2.UpdateVmRequest(vm=seen.id, spec=vm_pb2.VmSpec(name="first"), expected_generation=seen.generation)
    request.update_mask.paths.append("name")
    assert server.vms.UpdateVm(request).vm.generation == seen.generation + 1
    request.spec.name = "second"
    error = refused(server.vms.UpdateVm, request)
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "CHANGED_MEANWHILE")
    now = server.vms.GetVm(vm_pb2.GetVmRequest(vm=seen.id)).vm
    assert (now.name, now.generation) == ("first", seen.generation + 1)
