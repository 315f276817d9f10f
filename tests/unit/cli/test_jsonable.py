"""The promise of --json."""

import json

from google.protobuf.descriptor import FieldDescriptor

from ingle.cli.jsonable import enum_name, to_json
from ingle.v1 import image_pb2, kernel_pb2, operation_pb2, system_pb2, vm_pb2


def test_an_empty_message_has_every_field() -> None:
    vm = to_json(vm_pb2.Vm())
    assert vm["name"] == ""
    assert vm["memory_bytes"] == 0
    assert vm["env"] == {}
    assert vm["state"] is None
    assert vm["created_at"] is None
    assert to_json(operation_pb2.Operation())["stages"] == []


def test_64_bit_numbers_are_numbers() -> None:
    assert to_json(vm_pb2.Vm(disk_bytes=(1 << 64) - 1))["disk_bytes"] == (1 << 64) - 1


def test_enums_are_short_names_and_unknown_ones_numbers() -> None:
    assert to_json(vm_pb2.Vm(state=vm_pb2.VM_STATE_RUNNING))["state"] == "running"
    assert enum_name(operation_pb2.OperationKind.DESCRIPTOR, operation_pb2.OPERATION_KIND_CREATE_VM) == "create_vm"
    assert enum_name(vm_pb2.VmState.DESCRIPTOR, 99) == "99"


def test_times_are_rfc_3339_and_durations_seconds() -> None:
    stats = vm_pb2.GetVmStatsResponse()
    stats.vmm.cpu_time.FromMilliseconds(1250)
    numbers = {"cpu_time": 1.25, "resident_bytes": 0, "disk_allocated_bytes": 0}
    assert to_json(stats)["vmm"] == {**numbers, "disk_traffic": None}
    vm = vm_pb2.Vm()
    vm.created_at.FromJsonString("2026-01-02T03:04:05.678900Z")
    assert to_json(vm)["created_at"] == "2026-01-02T03:04:05.678900Z"


def test_an_optional_zero_differs_from_nothing() -> None:
    stage = operation_pb2.Stage(name="boot")
    assert to_json(stage)["fraction"] is None
    stage.fraction = 0.0
    assert to_json(stage)["fraction"] == 0.0


def test_maps_are_objects_in_order() -> None:
    assert list(json.loads(json.dumps(to_json(vm_pb2.Vm(env={"b": "2", "a": "1"}))["env"]))) == ["a", "b"]


def test_every_message_the_commands_print_has_a_place_in_json() -> None:
    for message in (
        vm_pb2.Vm,
        vm_pb2.GetVmStatsResponse,
        vm_pb2.GetVmHealthResponse,
        vm_pb2.PingVmResponse,
        image_pb2.Image,
        kernel_pb2.Kernel,
        kernel_pb2.CatalogKernel,
        operation_pb2.Operation,
        system_pb2.GetInfoResponse,
    ):
        assert not [field for field in message.DESCRIPTOR.fields if field.type == FieldDescriptor.TYPE_BYTES]
        json.dumps(to_json(message()))
