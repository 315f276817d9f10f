"""How many files this process may have open, and what the host says when it has no more of something.

The server raises its own limit, since every connection takes some. What it starts gets back what it was started with:
there are programs that go through all numbers there could be (fakeroot), or use select(2).
"""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN})
"""What accept(2), fork(2), open(2) and socket(2) answer when there is nothing left for now."""

LEAST = 64
"""With fewer, a server could hardly do anything: thirty are its own, and each connection and each VM takes some."""

_MOST = 65536
_SPARE = 8
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


class Spare:
    """Descriptors that are kept back, so that when there are no others something can still be said."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self.is_whole()

    def is_whole(self) -> bool:
        """Whether there is nothing missing, after taking back what can be had."""
        with suppress(OSError):
            while len(self._held) < _SPARE:
                self._held.append(os.open(os.devnull, os.O_PATH | os.O_CLOEXEC))
        return len(self._held) == _SPARE

    def lend(self, number: int) -> None:
        """Let whoever comes first have up to that many: the last ones, so that what is kept has low numbers. It is
        numbers that a limit, which may be lowered, is about."""
        self._held.sort()
        while self._held and number:
            os.close(self._held.pop())
            number -= 1

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lend the first one, and take it back afterwards."""
        self._held.sort()
        for descriptor in self._held[:1]:
            os.close(descriptor)
        del self._held[:1]
        try:
            yield
        finally:
            self.is_whole()

    def close(self) -> None:
        """Hold none any more."""
        self.lend(_SPARE)
