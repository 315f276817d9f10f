"""Logs that another process appends to, for years perhaps, and that take bounded room also while nobody looks.

The kernel ends them: RLIMIT_FSIZE lets no file of a process grow beyond an offset, and writing there fails.
That would end a VMM's disks as well; so a log begins at an offset that no disk of it has, behind a hole, which takes
no room. Who looks after the log moves the limit on, and makes a hole of what is old: offsets stay what they were.

A process has one limit for all its files. So a log that lags behind another of the same process, and could grow up to
where that one is, goes on there, behind one more hole.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ingle.api_server.host.files import open_log, punch_hole

KEPT_BYTES = 8 * 1024 * 1024
"""Of the end, whenever somebody looks."""
ROOM_BYTES = 32 * 1024 * 1024
"""For what is written until somebody looks again."""
_APART_BYTES = 4 * 1024 * 1024  # between the ends of a process's logs

_LOST = b"\n[ingle: there was no room for what was written here]\n"
_WHOLE = 64 * 1024  # a multiple of all block sizes: data that begins there begins with no zeros of a hole's


def begin(log: Path, offset: int) -> None:
    """The log is at `offset` or behind it, and goes on with what it had. Raises OSError where no file is as long."""
    former = read_end(log, KEPT_BYTES)
    with open_log(log, "ab") as file:
        if file.tell() < offset:
            file.truncate(0)
            file.truncate(_aligned(offset))
            file.write(former)


def level(logs: Iterable[Path]) -> None:
    """None of the logs of a process lags far behind another. Raises OSError."""
    sizes = {log: log.stat().st_size for log in logs}
    furthest = max(sizes.values())
    for log, size in sizes.items():
        if furthest - size > _APART_BYTES:
            os.truncate(log, _aligned(furthest))


def limit(logs: Iterable[Path]) -> int:
    """Up to which offset the process may write whose logs these are, once they are level. Raises OSError."""
    return min(log.stat().st_size for log in logs) + ROOM_BYTES


def trim(log: Path, kept: int = KEPT_BYTES) -> None:
    """Give back the blocks of all but about the last `kept` bytes. A log that is gone is fine."""
    with suppress(FileNotFoundError), open_log(log, "rb+") as file:
        rest = kept
        for start, stop in reversed(_extents(file.fileno())):
            if stop - start > rest:
                punch_hole(file.fileno(), (stop - rest) // _WHOLE * _WHOLE)
                return
            rest -= stop - start


def tell_loss(log: Path, limit: int) -> None:
    """Where writing has met the limit, say so in the log. One that is gone is fine."""
    with suppress(FileNotFoundError), open_log(log, "rb+") as file:
        if file.seek(0, os.SEEK_END) >= limit:
            file.write(_LOST)


def read_end(log: Path, size: int) -> bytes:
    """The last `size` bytes, without holes; nothing when the log is gone."""
    end = b""
    with suppress(FileNotFoundError), open_log(log, "rb") as file:
        for _, piece in pieces_backwards(file.fileno(), size):
            end = piece + end
            if len(end) >= size:
                break
    return end[-size:]


def written_behind(file: int, offset: int) -> tuple[int, int]:
    """From where to where there is what was written at that offset or later; the end, twice, when nothing was."""
    end = os.lseek(file, 0, os.SEEK_END)
    while (start := _data_behind(file, offset)) < end:
        offset = min(os.lseek(file, start, os.SEEK_HOLE), end)
        if (stop := _written(file, start, offset, end)) > start:
            return start, stop
    return end, end


def pieces_backwards(file: int, size: int) -> Iterator[tuple[int, bytes]]:
    """All that was written, from the end to the beginning, with its offsets."""
    end = os.lseek(file, 0, os.SEEK_END)
    for start, hole in reversed(_extents(file)):
        stop = _written(file, start, hole, end)
        while stop > start:
            begins = max(start, stop - size)
            yield begins, os.pread(file, stop - begins, begins)
            stop = begins


def written(file: int) -> list[tuple[int, int]]:
    """From where to where there is what was written."""
    end = os.lseek(file, 0, os.SEEK_END)
    return [(start, _written(file, start, hole, end)) for start, hole in _extents(file)]


def _extents(file: int) -> list[tuple[int, int]]:
    """What is no hole, in blocks."""
    extents = []
    end, offset = os.lseek(file, 0, os.SEEK_END), 0
    while (start := _data_behind(file, offset)) < end:
        offset = os.lseek(file, start, os.SEEK_HOLE)
        extents.append((start, min(offset, end)))
    return extents


def _written(file: int, start: int, stop: int, end: int) -> int:
    """Where that ends which was written before `stop`, where a hole begins: it fills its last block with zeros."""
    if stop == end:
        return stop
    block = min(os.fstat(file).st_blksize, _WHOLE, stop - start)
    return stop - block + len(os.pread(file, block, stop - block).rstrip(b"\0"))


def _data_behind(file: int, offset: int) -> int:
    """Where the first bytes are that begin there or later and are no hole; the end when there are none."""
    try:
        return os.lseek(file, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.lseek(file, 0, os.SEEK_END)


def _aligned(offset: int) -> int:
    return -(-offset // _WHOLE) * _WHOLE
