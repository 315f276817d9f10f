"""Logs that another process appends to, for years perhaps, and that take bounded room also while nobody looks.

The kernel ends them: RLIMIT_FSIZE lets no file of a process grow beyond an offset, and writing there fails.
That would end a VMM's disks as well; so a log begins at an offset that no disk of it has, behind a hole, which takes
no room. Who looks after the log moves the limit on, and makes a hole of what is old: offsets stay what they were.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ingle.api_server.host.files import punch_hole

KEPT_BYTES = 8 * 1024 * 1024
"""Of the end, whenever somebody looks."""
ROOM_BYTES = 32 * 1024 * 1024
"""For what is written until somebody looks again."""

_LOST = b"\n[ingle: there was no room for what was written here]\n"
_WHOLE = 64 * 1024  # a multiple of all block sizes: data that begins there begins with no zeros of a hole's


def begin(log: Path, offset: int) -> None:
    """The log is at `offset` or behind it, and goes on with what it had. Raises OSError where no file is as long."""
    former = read_end(log, KEPT_BYTES)
    with open(log, "ab", opener=_private) as file:
        if file.tell() < offset:
            file.truncate(0)
            file.truncate(-(-offset // _WHOLE) * _WHOLE)
            file.write(former)


def limit(logs: Iterable[Path]) -> int:
    """Up to which offset the process that writes them may write. Raises OSError."""
    return max(log.stat().st_size for log in logs) + ROOM_BYTES


def trim(log: Path, kept: int = KEPT_BYTES) -> None:
    """Give back the blocks of all but about the last `kept` bytes. A log that is gone is fine."""
    with suppress(FileNotFoundError), log.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end > kept:
            punch_hole(file.fileno(), (end - kept) // _WHOLE * _WHOLE)


def tell_loss(log: Path, limit: int) -> None:
    """Where writing has met the limit, say so in the log. One that is gone is fine."""
    with suppress(FileNotFoundError), log.open("rb+") as file:
        if file.seek(0, os.SEEK_END) >= limit:
            file.write(_LOST)


def read_end(log: Path, size: int) -> bytes:
    """The last `size` bytes, without holes; nothing when the log is gone."""
    end = b""
    with suppress(FileNotFoundError), log.open("rb") as file:
        for _, piece in pieces_backwards(file.fileno(), size):
            end = piece + end
            if len(end) >= size:
                break
    return end[-size:]


def data_behind(file: int, offset: int) -> int:
    """Where the first bytes are that begin there or later and are no hole; the end when there are none."""
    try:
        return os.lseek(file, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.lseek(file, 0, os.SEEK_END)


def pieces_backwards(file: int, size: int) -> Iterator[tuple[int, bytes]]:
    """All bytes that are no hole, from the end to the beginning, with their offsets."""
    extents = []
    end, offset = os.lseek(file, 0, os.SEEK_END), 0
    while (start := data_behind(file, offset)) < end:
        offset = os.lseek(file, start, os.SEEK_HOLE)
        extents.append((start, min(offset, end)))
    for start, stop in reversed(extents):
        while stop > start:
            begins = max(start, stop - size)
            yield begins, os.pread(file, stop - begins, begins)
            stop = begins  # noqa: PLW2901 - backwards


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
