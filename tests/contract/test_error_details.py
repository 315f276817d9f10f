"""What programs can take from an error beside its reason: which field, which resource, and whether to try again."""

import base64
from collections.abc import Callable
from urllib.parse import quote_from_bytes

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from harness import Server, refused
from ingle.api_server.model.errors import Conflict, GuestError, InvalidArgument, Reason
from ingle.api_server.rpc.details import details
from ingle.api_server.rpc.errors import wire_error
from ingle.v1 import guest_pb2, image_pb2, kernel_pb2, operation_pb2, vm_pb2

KINDS = (error_details_pb2.BadRequest, error_details_pb2.ResourceInfo, error_details_pb2.RetryInfo)


def told(call: Callable[[], object]) -> list[Message]:
    """The details behind ErrorInfo of a call that must fail."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    metadata: dict[str, bytes] = dict(raised.value.trailing_metadata())  # type: ignore[arg-type]
    found = []
    for detail in status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details[1:]:
        (kind,) = (kind for kind in KINDS if detail.Is(kind.DESCRIPTOR))
        message = kind()
        detail.Unpack(message)
        found.append(message)
    return found


def fields(call: Callable[[], object]) -> list[str]:
    (bad,) = told(call)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert all(violation.description for violation in bad.field_violations)
    return [violation.field for violation in bad.field_violations]


BAD_FIELDS = [
    ("spec.vcpus", vm_pb2.VmSpec(vcpus=0)),
    ("spec.memory_bytes", vm_pb2.VmSpec(memory_bytes=1)),
    ("spec.disk_bytes", vm_pb2.VmSpec(disk_bytes=0)),
    ("spec.name", vm_pb2.VmSpec(name="Not_A_Label")),
    ("spec.env", vm_pb2.VmSpec(env={"BAD NAME": "x"})),
    ("spec.env", vm_pb2.VmSpec(env={"MUCH": "x" * 65536})),
    ("spec.env", vm_pb2.VmSpec(env={f"N{number}": "x" * 1000 for number in range(70)})),
    ("spec.acceleration", vm_pb2.VmSpec(acceleration=77)),  # type: ignore[arg-type]
    ("spec.disk_backend", vm_pb2.VmSpec(disk_backend="floppy")),
    ("spec.init", vm_pb2.VmSpec(init=7)),  # type: ignore[arg-type]
    ("spec.ssh_keys", vm_pb2.VmSpec(ssh_keys=["ssh-ed25519 AAAA"])),
    ("spec.ssh_keys", vm_pb2.VmSpec(ssh_keys=["ssh-ed25519 " + "A" * 15000] * 20)),
    ("spec.ports", vm_pb2.VmSpec(ports=[vm_pb2.PublishedPort(host_port=0, vm_port=80)])),
]


@pytest.mark.parametrize(("field", "spec"), BAD_FIELDS)
def test_a_bad_field_is_named_as_the_request_has_it(server: Server, field: str, spec: vm_pb2.VmSpec) -> None:
    assert fields(lambda: server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec))) == [field]
    assert server.list() == []


def test_a_bad_field_of_a_stream_is_named_below_start(server: Server) -> None:
    request = image_pb2.RegisterImageRequest(start=image_pb2.RegisterImageStart(name="Not A Name"))
    assert fields(lambda: server.images.RegisterImage(iter([request]))) == ["start.name"]


def test_a_resource_that_is_missing_is_named(server: Server) -> None:
    calls: list[tuple[Callable[[], object], tuple[str, str]]] = [
        (lambda: server.vms.GetVm(vm_pb2.GetVmRequest(vm="none")), ("ingle.v1.Vm", "none")),
        (lambda: server.images.GetImage(image_pb2.GetImageRequest(image="none")), ("ingle.v1.Image", "none")),
        (lambda: server.kernels.GetKernel(kernel_pb2.GetKernelRequest(kernel="none")), ("ingle.v1.Kernel", "none")),
        (lambda: server.images.PullImage(image_pb2.PullImageRequest(name="debian")), ("ingle.v1.Image", "debian")),
        (
            lambda: server.operations.GetOperation(operation_pb2.GetOperationRequest(operation_id="op-none")),
            ("ingle.v1.Operation", "op-none"),
        ),
        (
            lambda: list(
                server.guest.Exec(iter([guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm="none", argv=["true"]))]))
            ),
            ("ingle.v1.Vm", "none"),
        ),
        (
            lambda: server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(image="debian:bokworm"))),
            ("ingle.v1.Image", "debian:bokworm"),
        ),
    ]
    for call, (kind, name) in calls:
        (info,) = told(call)
        assert isinstance(info, error_details_pb2.ResourceInfo)
        assert (info.resource_type, info.resource_name) == (kind, name)


def test_what_passes_by_itself_says_when_to_try_again() -> None:
    error = Conflict(Reason.SERVER_STOPPING, "stopping")
    (retry,) = details(error, vm_pb2.GetVmRequest(vm="web"))
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToSeconds() == 1


def test_a_request_that_was_never_seen_has_nothing_to_name() -> None:
    assert list(details(GuestError(Reason.VM_ENDED, "ended"), None)) == []


@pytest.mark.parametrize("text", ["a", "字", "😀", "\udc80"])
def test_details_that_quote_much_leave_room_for_the_message(text: str) -> None:
    error = InvalidArgument(text * 5000, text * 5000, field="name")
    request = vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="字" * 5000))
    _, status = wire_error(error.reason, error.message, error.remedy, "op-0123456789ab", details(error, request))
    quoted = len(quote_from_bytes(status.message.encode(), safe="".join(map(chr, range(0x20, 0x7F))).replace("%", "")))
    assert quoted + len(base64.b64encode(status.SerializeToString())) <= 4096
    assert len(status.message) > 20


def test_what_was_said_at_length_is_neither_told_nor_logged_at_length(server: Server) -> None:
    said = "x" * 3_000_000
    error = refused(server.vms.GetVm, vm_pb2.GetVmRequest(vm=said))
    assert len(error.message) < 4096
    assert error.op_id in server.said()
    assert max(map(len, server.said().splitlines())) < 8192
