"""The one error of the helper, and how it looks on the wire: the same as any error of ingle's API."""

from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from ingle.v1.error_pb2 import ErrorReason

DOMAIN = "ingle"
OP_ID_KEY = "ingle-op-id"

_DETAILS_KEY = "grpc-status-details-bin"
_PREFIX = "ERROR_REASON_"
# Bytes. grpc's peers may refuse more than 8 KiB of metadata, and the message is in it twice: once in base64, and once
# percent-encoded, where a byte may take three.
_MESSAGE_LIMIT = 900

_CODES = {
    "INVALID_ARGUMENT": grpc.StatusCode.INVALID_ARGUMENT,
    "UNKNOWN_METHOD": grpc.StatusCode.UNIMPLEMENTED,
    "MESSAGE_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "PEER_REFUSED": grpc.StatusCode.PERMISSION_DENIED,
    "WRONG_STATE": grpc.StatusCode.FAILED_PRECONDITION,
    "IN_USE": grpc.StatusCode.FAILED_PRECONDITION,
    "DEPENDENCY_MISSING": grpc.StatusCode.FAILED_PRECONDITION,
    "DISK_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "FILE_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "NOT_A_REGULAR_FILE": grpc.StatusCode.FAILED_PRECONDITION,
    "FILE_PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "SYMLINK_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "TOOL_FAILED": grpc.StatusCode.INTERNAL,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}


class HelperError(Exception):
    """What failed and why, and what to do instead (may be empty). `reason` is an ErrorReason's."""

    def __init__(self, reason: "ErrorReason.ValueType", message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.reason = ErrorReason.Name(reason).removeprefix(_PREFIX)
        self.message = message
        self.remedy = remedy


class InvalidRequest(HelperError):
    """The request is wrong in itself. Raised before anything changes."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(ErrorReason.ERROR_REASON_INVALID_ARGUMENT, message, remedy)


class Refused(HelperError):
    """The request is right, but the present state forbids it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(ErrorReason.ERROR_REASON_WRONG_STATE, message, remedy)


class InUse(HelperError):
    """Somebody has it already, or all that there may be are taken."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(ErrorReason.ERROR_REASON_IN_USE, message, remedy)


class Missing(HelperError):
    """The host lacks something."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(ErrorReason.ERROR_REASON_DEPENDENCY_MISSING, message, remedy)


class KernelRefused(HelperError):
    """The kernel, or a tool, would not do it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(ErrorReason.ERROR_REASON_TOOL_FAILED, message, remedy)


def _cut(message: str) -> str:
    encoded = message.encode(errors="replace")
    if len(encoded) <= _MESSAGE_LIMIT:
        return encoded.decode()
    return encoded[:_MESSAGE_LIMIT].decode(errors="ignore") + "…"


def abort(context: grpc.ServicerContext, op_id: str, error: HelperError) -> NoReturn:
    """End the call with `error`."""
    code = _CODES[error.reason]
    message = _cut(error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"op_id": op_id})
    if error.remedy:
        info.metadata["remedy"] = error.remedy
    detail = Any()
    detail.Pack(info)
    status = status_pb2.Status(code=code.value[0], message=message, details=[detail])
    context.set_trailing_metadata(((OP_ID_KEY, op_id), (_DETAILS_KEY, status.SerializeToString())))
    context.abort(code, message)
    raise AssertionError("abort returned")
