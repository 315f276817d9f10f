"""The one error tree. Every failure a caller can see is an IngleError with a reason a program can switch on.

IngleError
├── InvalidArgument      the request is wrong; nothing was changed
├── NotFound             a reference stands for nothing
├── Conflict             right, but not in the present state
├── CursorExpired        what is asked for was forgotten
├── HostProblem          the host lacks something
├── BadFile              a file given to ingle is not what it should be
├── ToolFailed           a tool or the VMM failed
└── GuestError           the guest's agent failed or could not do it
"""

from enum import Enum


class Reason(Enum):
    """Names as in `ingle.v1.ErrorReason`, without its prefix; a contract test holds the two together."""

    INVALID_ARGUMENT = 1
    BAD_VERSION = 2
    UNKNOWN_METHOD = 3
    MESSAGE_TOO_LARGE = 4
    PEER_REFUSED = 5
    NOT_ADMIN = 180
    NOT_OWNER = 181
    QUOTA_EXCEEDED = 182
    VM_NOT_FOUND = 10
    IMAGE_NOT_FOUND = 11
    KERNEL_NOT_FOUND = 12
    OPERATION_NOT_FOUND = 13
    SNAPSHOT_NOT_FOUND = 15
    AMBIGUOUS_REFERENCE = 14
    NAME_TAKEN = 20
    WRONG_STATE = 21
    IN_USE = 22
    OPERATION_CANCELLED = 23
    SERVER_STOPPING = 24
    CHANGED_MEANWHILE = 25
    CURSOR_EXPIRED = 26
    DEPENDENCY_MISSING = 30
    DISK_FULL = 31
    PATH_TOO_LONG = 32
    PORT_REFUSED = 33
    ADDRESSES_EXHAUSTED = 34
    DISK_OVERFLOWED = 36
    HOST_EXHAUSTED = 130
    TOO_MANY_CALLS = 131
    IMAGE_INVALID = 40
    KERNEL_INVALID = 41
    SNAPSHOT_INVALID = 42
    SNAPSHOT_INCOMPATIBLE = 43
    MEMORY_DAMAGED = 44
    REGISTRY_DENIED = 190
    REGISTRY_UNREACHABLE = 191
    TOOL_FAILED = 50
    VMM_FAILED = 51
    GUEST_UNREACHABLE = 52
    GUEST_PROTOCOL = 53
    COMMAND_NOT_FOUND = 60
    COMMAND_NOT_EXECUTABLE = 61
    GUEST_USER_NOT_FOUND = 62
    GUEST_DIRECTORY_NOT_FOUND = 63
    GUEST_GROUP_NOT_FOUND = 92
    RESOURCE_LIMIT_REFUSED = 93
    COMMAND_TIMED_OUT = 170
    SESSION_NOT_FOUND = 90
    SESSION_ATTACHED = 91
    FILE_NOT_FOUND = 70
    FILE_EXISTS = 71
    IS_A_DIRECTORY = 72
    NOT_A_DIRECTORY = 73
    DIRECTORY_NOT_EMPTY = 74
    FILE_PERMISSION_DENIED = 75
    GUEST_DISK_FULL = 76
    READ_ONLY_FILE_SYSTEM = 77
    SYMLINK_REFUSED = 78
    FILE_NAME_TOO_LONG = 79
    NOT_A_REGULAR_FILE = 80
    FILE_BUSY = 81
    CROSS_DEVICE = 82
    ARCHIVE_INVALID = 83
    FILE_TOO_LARGE = 84
    FILE_IO_FAILED = 85
    FILE_NOT_SUPPORTED = 86
    GUEST_OUT_OF_RESOURCES = 87
    VM_ENDED = 120
    GUEST_INTERFACE_NOT_FOUND = 110
    NOT_A_GUEST = 111
    INIT_NOT_FOUND = 112
    IDENTITY_PENDING = 113
    GUEST_RESTING = 114
    GUEST_RESTLESS = 115
    INTERNAL = 99
    CONNECTION_REFUSED = 100
    CONNECTION_TIMED_OUT = 101
    CONNECTION_RESET = 102
    HOST_UNREACHABLE = 103
    SOCKET_NOT_FOUND = 104
    CONNECTION_NOT_PERMITTED = 105


class IngleError(Exception):
    """What failed and why (`message`), what to type instead (`remedy`, may be empty), and `reason` for programs."""

    def __init__(self, reason: Reason, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.remedy = remedy


class InvalidArgument(IngleError):
    """The request is wrong in itself. Raised before anything changes. `field` is the one that is, by its name in the
    contract; empty where it is no single one."""

    def __init__(self, message: str, remedy: str = "", *, field: str = "") -> None:
        super().__init__(Reason.INVALID_ARGUMENT, message, remedy)
        self.field = field


class NotFound(IngleError):
    """A name or id stands for nothing (or, AMBIGUOUS_REFERENCE, for several things)."""


class Conflict(IngleError):
    """The request is right, but the present state forbids it."""


class CursorExpired(IngleError):
    """What came behind an event is kept no longer, or that event never was. `oldest`: the cursor to go on from."""

    def __init__(self, cursor: int, oldest: int) -> None:
        super().__init__(
            Reason.CURSOR_EXPIRED,
            f"cursor {cursor}: what came behind it is kept no longer; the oldest to go on from is {oldest}",
            "look at what there is now, and go on from the oldest",
        )
        self.oldest = oldest


class HostProblem(IngleError):
    """The host lacks a program, space, or a short enough path."""


class BadFile(IngleError):
    """An image or kernel file is not what it should be."""


class ToolFailed(IngleError):
    """A tool or the VMM ended badly; the message holds the end of its stderr."""


class GuestError(IngleError):
    """The guest could not be reached, broke the protocol, or could not start a command or use a file."""
