"""What a guest command may use, and the rules for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from ingle.api_server.model.errors import InvalidArgument

UNLIMITED = 2**64 - 1
_LARGEST_UMASK = 0o777


class Limited(IntEnum):
    """What of a process can be: names as in `ingle.v1.Resource`, without its prefix; numbers as in <sys/resource.h>,
    which are the agent's."""

    CPU = 0
    FSIZE = 1
    DATA = 2
    STACK = 3
    CORE = 4
    RSS = 5
    NPROC = 6
    NOFILE = 7
    MEMLOCK = 8
    AS = 9
    LOCKS = 10
    SIGPENDING = 11
    MSGQUEUE = 12
    NICE = 13
    RTPRIO = 14
    RTTIME = 15


@dataclass(frozen=True, slots=True)
class ResourceLimit:
    """`soft` holds, and the command may raise it up to `hard`; in the resource's own unit, or UNLIMITED."""

    resource: Limited
    soft: int
    hard: int


def check_limits(limits: Iterable[ResourceLimit]) -> None:
    """Raises InvalidArgument for a soft limit above the hard one, and for a resource that is named twice."""
    seen = set()
    for limit in limits:
        name = limit.resource.name.lower()
        if limit.soft > limit.hard:
            raise InvalidArgument(
                f"limit {name}: soft {_told(limit.soft)} is above hard {_told(limit.hard)}",
                f"--ulimit {name}={_told(limit.hard)}:{_told(limit.soft)}",
                field="limits",
            )
        if limit.resource in seen:
            raise InvalidArgument(f"limit {name}: it is given twice", field="limits")
        seen.add(limit.resource)


def check_umask(umask: int) -> None:
    """Raises InvalidArgument."""
    if not 0 <= umask <= _LARGEST_UMASK:
        raise InvalidArgument(
            f"umask {umask:04o}: 0000 to {_LARGEST_UMASK:04o} is allowed", "--umask 027", field="umask"
        )


def _told(value: int) -> str:
    return "unlimited" if value == UNLIMITED else str(value)
