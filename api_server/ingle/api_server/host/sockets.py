"""What a unix socket's path can be."""

import os
from pathlib import Path

from ingle.api_server.model.errors import HostProblem, Reason

PATH_LIMIT = 107
"""Bytes: sockaddr_un.sun_path holds 108 with the terminating zero, see unix(7)."""


def path_length(path: Path) -> int:
    """Bytes of `path`, as the kernel counts them."""
    return len(os.fsencode(path))


def check_path(path: Path, remedy: str) -> None:
    """Raise HostProblem(PATH_TOO_LONG) unless a socket can be bound to `path`."""
    length = path_length(path)
    if length > PATH_LIMIT:
        raise HostProblem(
            Reason.PATH_TOO_LONG, f"{path} is {length} bytes long; a socket path can have {PATH_LIMIT}", remedy
        )
