"""What stands beside ErrorInfo in an error's details, for programs: which field, which resource, and when again."""

from collections.abc import Iterator, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from ingle.api_server.model.errors import IngleError, InvalidArgument, Reason

_LONGEST_TEXT_BYTES = 300

_RETRY_SECONDS = {
    Reason.SERVER_STOPPING: 1,
    Reason.HOST_EXHAUSTED: 1,
    Reason.TOO_MANY_CALLS: 1,
    Reason.GUEST_OUT_OF_RESOURCES: 1,
}
"""What passes by itself, and how soon it is worth another try."""

_VM = (("ingle.v1.Vm", "vm"),)
_IMAGE = (("ingle.v1.Image", "image"), ("ingle.v1.Image", "name"))
_KERNEL = (("ingle.v1.Kernel", "kernel"), ("ingle.v1.Kernel", "name"))
_SNAPSHOT = (("ingle.v1.Snapshot", "snapshot"),)

_RESOURCES = {
    Reason.VM_NOT_FOUND: _VM,
    Reason.IMAGE_NOT_FOUND: _IMAGE,
    Reason.KERNEL_NOT_FOUND: _KERNEL,
    Reason.SNAPSHOT_NOT_FOUND: _SNAPSHOT,
    Reason.SNAPSHOT_INVALID: _SNAPSHOT,
    Reason.SNAPSHOT_INCOMPATIBLE: _SNAPSHOT,
    Reason.OPERATION_NOT_FOUND: (("ingle.v1.Operation", "operation_id"),),
    Reason.SESSION_NOT_FOUND: (("ingle.v1.Session", "session_id"),),
    Reason.SESSION_ATTACHED: (("ingle.v1.Session", "session_id"),),
    Reason.AMBIGUOUS_REFERENCE: (*_SNAPSHOT, *_VM, _IMAGE[0], _KERNEL[0]),
    Reason.NAME_TAKEN: (("ingle.v1.Vm", "name"),),
    Reason.WRONG_STATE: _VM,
    Reason.CHANGED_MEANWHILE: _VM,
    Reason.IN_USE: (*_SNAPSHOT, *_VM, _IMAGE[0], _KERNEL[0]),
    Reason.VM_ENDED: _VM,
    Reason.GUEST_UNREACHABLE: _VM,
}
"""What an error is about: types, and the fields of a request that say which one. The first that the request has."""

_INNER = ("start", "spec", "program", "create")
"""Fields of requests whose own fields are what a caller says."""


def details(error: IngleError, request: object) -> Iterator[Message]:
    """For `error` of a call whose first message was `request`. Texts are cut, so that all of it stays small."""
    if not isinstance(request, Message):
        request = None
    if isinstance(error, InvalidArgument) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_path(request, error.field) or error.field, description=_short(error.message)
        )
        yield error_details_pb2.BadRequest(field_violations=[violation])
    resource = _resource(request, _RESOURCES.get(error.reason, ()))
    if resource is not None:
        yield resource
    if error.reason in _RETRY_SECONDS:
        yield error_details_pb2.RetryInfo(retry_delay=Duration(seconds=_RETRY_SECONDS[error.reason]))


def _resource(request: Message | None, candidates: Sequence[tuple[str, str]]) -> error_details_pb2.ResourceInfo | None:
    for kind, field in candidates:
        name = _value(request, _path(request, field))
        if isinstance(name, str) and name:
            return error_details_pb2.ResourceInfo(resource_type=kind, resource_name=_short(name))
    return None


def _path(message: Message | None, field: str) -> str:
    """Where `message` has a field of that name: "spec.vcpus"; empty when it has none."""
    if message is None:
        return ""
    if field.partition(".")[0] in message.DESCRIPTOR.fields_by_name:
        return field
    for name in _INNER:
        if name in message.DESCRIPTOR.fields_by_name and message.HasField(name):
            inner = _path(getattr(message, name), field)
            if inner:
                return f"{name}.{inner}"
    return ""


def _value(message: Message | None, path: str) -> object:
    value: object = message
    for name in path.split(".") if path else ():
        value = getattr(value, name)
    return None if value is message else value


def _short(text: str) -> str:
    data = text.encode(errors="replace")
    cut = data[:_LONGEST_TEXT_BYTES].decode(errors="ignore")
    return cut if len(data) <= _LONGEST_TEXT_BYTES else cut + "…"
