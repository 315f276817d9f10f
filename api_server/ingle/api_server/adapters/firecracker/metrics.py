"""What Firecracker counts: it writes that as lines of JSON, each with what came since the one before, once a minute and
when it is asked to.

They go to a pipe. What nobody has read waits there, 64 KiB of it; what finds no room is lost, and takes none."""

import json
import os
import stat
from pathlib import Path

from ingle.api_server.adapters.firecracker.machine import DISK
from ingle.api_server.ports.engine import DiskTraffic

_MODE = 0o600
_PIECE = 1 << 16
_MOST_AT_ONCE = 1 << 20  # of one that does nothing but write, since a guest has taken it over
_LONGEST_LINE = 1 << 16
_MOST = 2**64 - 1
_DRIVE = f"block_{DISK}"
_DISK = ("read_count", "read_bytes", "write_count", "write_bytes")
"""In the order of DiskTraffic."""


def make(pipe: Path) -> None:
    """A new one, in place of what is there."""
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, _MODE)


def opened(pipe: Path) -> "Metrics | None":
    """None where there is no pipe: an earlier release has started that Firecracker, or its guest has taken it over."""
    try:
        descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return Metrics(descriptor)
    os.close(descriptor)
    return None


class Metrics:
    """The reading end of a pipe, by its descriptor, which is this one's from now on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._line = b""
        self._disk = dict.fromkeys(_DISK, 0)

    def take(self) -> None:
        """Read what is there."""
        for _ in range(0, _MOST_AT_ONCE, _PIECE):
            try:
                piece = os.read(self._descriptor, _PIECE)
            except BlockingIOError:
                return
            if not piece:
                return
            *lines, self._line = (self._line + piece).split(b"\n")
            self._line = self._line[-_LONGEST_LINE:]
            for line in lines:
                self._add(line)

    @property
    def disk(self) -> DiskTraffic:
        """The sum of what was taken."""
        return DiskTraffic(*self._disk.values())

    def close(self) -> None:
        """Let go of it. Firecracker has it still."""
        os.close(self._descriptor)

    def _add(self, line: bytes) -> None:
        """A line that was cut, since the pipe was full, says nothing."""
        try:
            counted = json.loads(line)[_DRIVE]
            new = {name: counted[name] for name in _DISK}
        except (ValueError, RecursionError, KeyError, TypeError):
            return
        if all(type(value) is int and value >= 0 for value in new.values()):
            self._disk = {name: min(self._disk[name] + value, _MOST) for name, value in new.items()}
