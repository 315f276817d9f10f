"""Errors on the wire: google.rpc.Status with ErrorInfo, the op_id in it and in the metadata, and more for programs."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import NoReturn
from urllib.parse import quote

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ingle.api_server.model.errors import CursorExpired, IngleError, Reason
from ingle.api_server.rpc.details import details
from ingle.api_server.rpc.remedies import with_names

DOMAIN = "ingle"
OP_ID_KEY = "ingle-op-id"
VERSION_KEY = "ingle-api-version"

_DETAILS_KEY = "grpc-status-details-bin"

# Peers may refuse more than 8 KiB of metadata in all, as Java's do, and lose the connection. The message is in it
# twice: percent-encoded, so that a byte may take three, and with the rest in base64.
_WIRE_LIMIT = 4096
_REMEDY_LIMIT = 700
_CUT = "…"
_NEVER_ENCODED = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_BASE64 = 4 / 3

_CODES = {
    Reason.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.BAD_VERSION: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.UNKNOWN_METHOD: grpc.StatusCode.UNIMPLEMENTED,
    Reason.MESSAGE_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.PEER_REFUSED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.NOT_ADMIN: grpc.StatusCode.PERMISSION_DENIED,
    Reason.NOT_OWNER: grpc.StatusCode.PERMISSION_DENIED,
    Reason.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.VM_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.IMAGE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.KERNEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.OPERATION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.SNAPSHOT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.AMBIGUOUS_REFERENCE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NAME_TAKEN: grpc.StatusCode.ALREADY_EXISTS,
    Reason.WRONG_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.IN_USE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.OPERATION_CANCELLED: grpc.StatusCode.CANCELLED,
    Reason.SERVER_STOPPING: grpc.StatusCode.UNAVAILABLE,
    Reason.CHANGED_MEANWHILE: grpc.StatusCode.ABORTED,
    Reason.CURSOR_EXPIRED: grpc.StatusCode.OUT_OF_RANGE,
    Reason.DEPENDENCY_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.DISK_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.PATH_TOO_LONG: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.PORT_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ADDRESSES_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DISK_OVERFLOWED: grpc.StatusCode.DATA_LOSS,
    Reason.HOST_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_CALLS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.IMAGE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.KERNEL_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.SNAPSHOT_INVALID: grpc.StatusCode.DATA_LOSS,
    Reason.SNAPSHOT_INCOMPATIBLE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MEMORY_DAMAGED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.REGISTRY_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.REGISTRY_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.TOOL_FAILED: grpc.StatusCode.INTERNAL,
    Reason.VMM_FAILED: grpc.StatusCode.INTERNAL,
    Reason.GUEST_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.GUEST_PROTOCOL: grpc.StatusCode.INTERNAL,
    Reason.COMMAND_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.COMMAND_NOT_EXECUTABLE: grpc.StatusCode.PERMISSION_DENIED,
    Reason.GUEST_USER_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.GUEST_DIRECTORY_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.GUEST_GROUP_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.RESOURCE_LIMIT_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.COMMAND_TIMED_OUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.SESSION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.SESSION_ATTACHED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.FILE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.FILE_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.IS_A_DIRECTORY: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NOT_A_DIRECTORY: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.DIRECTORY_NOT_EMPTY: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.FILE_PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.GUEST_DISK_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.READ_ONLY_FILE_SYSTEM: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SYMLINK_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.FILE_NAME_TOO_LONG: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_A_REGULAR_FILE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.FILE_BUSY: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CROSS_DEVICE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ARCHIVE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.FILE_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.FILE_IO_FAILED: grpc.StatusCode.INTERNAL,
    Reason.FILE_NOT_SUPPORTED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.GUEST_OUT_OF_RESOURCES: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.VM_ENDED: grpc.StatusCode.ABORTED,
    Reason.GUEST_INTERFACE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.NOT_A_GUEST: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.IDENTITY_PENDING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.GUEST_RESTING: grpc.StatusCode.UNAVAILABLE,
    Reason.GUEST_RESTLESS: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.INIT_NOT_FOUND: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.CONNECTION_REFUSED: grpc.StatusCode.UNAVAILABLE,
    Reason.CONNECTION_TIMED_OUT: grpc.StatusCode.UNAVAILABLE,
    Reason.CONNECTION_RESET: grpc.StatusCode.ABORTED,
    Reason.HOST_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.SOCKET_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.CONNECTION_NOT_PERMITTED: grpc.StatusCode.PERMISSION_DENIED,
}


async def abort(
    context: "grpc.aio.ServicerContext[object, object]", op_id: str, error: IngleError, request: object
) -> NoReturn:
    """End the call, whose first message was `request`, with `error`."""
    remedy = with_names(error.remedy, request)
    facts = {"oldest_cursor": str(error.oldest)} if isinstance(error, CursorExpired) else {}
    code, status = wire_error(error.reason, error.message, remedy, op_id, details(error, request), facts)
    await context.abort(code, status.message, ((OP_ID_KEY, op_id), (_DETAILS_KEY, status.SerializeToString())))


def raw_trailers(op_id: str, error: IngleError) -> tuple[tuple[str, bytes], ...]:
    """What ends a call with `error` where there is no gRPC to say it; names and values as gRPC has them on the wire,
    before base64."""
    code, status = wire_error(error.reason, error.message, error.remedy, op_id)
    return (
        ("grpc-status", str(code.value[0]).encode()),
        ("grpc-message", quote(status.message, safe=_NEVER_ENCODED).encode()),
        (OP_ID_KEY, op_id.encode()),
        (_DETAILS_KEY, status.SerializeToString()),
    )


def wire_error(
    reason: Reason,
    message: str,
    remedy: str,
    op_id: str,
    beside: Iterable[Message] = (),
    facts: Mapping[str, str] = MappingProxyType({}),
) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """An error as it travels: message and details together, `beside` being those behind ErrorInfo and `facts` more of
    its metadata, are at most 4 KiB on the wire."""
    code = _CODES[reason]
    info = error_details_pb2.ErrorInfo(reason=reason.name, domain=DOMAIN, metadata={"op_id": op_id} | dict(facts))
    if remedy:
        info.metadata["remedy"] = _cut(remedy, _REMEDY_LIMIT, len)
    status = status_pb2.Status(code=code.value[0])
    for detail in (info, *beside):
        status.details.add().Pack(detail)
    room = _WIRE_LIMIT - _BASE64 * (status.ByteSize() + 8)  # 8: the message's own header, and padding
    status.message = _cut(message, room, lambda char: _percent_encoded(char) + _BASE64 * len(char))
    return code, status


def _cut(text: str, room: float, cost: Callable[[bytes], float]) -> str:
    """As many characters as there is room for, when each costs that much, 1 at least; what is no text becomes one that
    is. A caller may have said millions, while all others wait."""
    text = text[: max(1, int(room) + 1)]
    text = text.encode(errors="replace").decode()
    costs = list(accumulate(cost(char.encode()) for char in text))
    if not costs or costs[-1] <= room:
        return text
    return text[: bisect_right(costs, room - cost(_CUT.encode()))] + _CUT


def _percent_encoded(char: bytes) -> int:
    """The bytes that a character takes in grpc-message."""
    return sum(1 if 0x20 <= byte <= 0x7E and byte != ord("%") else 3 for byte in char)
