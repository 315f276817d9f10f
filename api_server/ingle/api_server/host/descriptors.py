"""How many files this process may have open, and what the host says when it has no more of something.

The server raises its own limit, since every connection takes some. What it starts gets back what it was started with:
there are programs that go through all numbers there could be (fakeroot), or use select(2).
"""

import errno
import resource
from contextlib import suppress

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN})
"""What accept(2), fork(2), open(2) and socket(2) answer when there is nothing left for now."""

_MOST = 65536
_original: tuple[int, int] | None = None


def raise_limit() -> None:
    """Up to the hard limit, within reason."""
    global _original  # noqa: PLW0603 - a process has one such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        _original = soft, hard


def lower_limit(pid: int) -> None:
    """Give a process that we have just started the limit that we were started with. One that has ended is fine."""
    if _original is not None:
        with suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _original)


def most_descriptors() -> int:
    """How many there can be."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else soft
