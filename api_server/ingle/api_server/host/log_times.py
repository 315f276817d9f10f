"""When the lines of a bounded log were written, as far as somebody who looks after the log has seen.

Beside a log is a file of records: how long the log was, and when that was written last. Whoever looks adds one when the
log has grown. A line was written by the time of the first record that is beyond the line's beginning; behind the last
record, by the time at which the log was written last. So what nobody saw come has the time of the last of it.

When a record is lost, its lines have the time of the next. So nothing here is ever synced, and what makes no sense is
passed over.
"""

import os
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.host import bounded_log
from ingle.api_server.host.files import open_log

MOST_RECORDS = 4096
"""64 KiB: an hour of a guest that says something every second. Of what is older, fewer and fewer are kept."""

_RECORD = struct.Struct(">QQ")  # bytes from the log's beginning, nanoseconds since the epoch
_MOST_BYTES = MOST_RECORDS * _RECORD.size

Records = list[tuple[int, int]]


def beside(log: Path) -> Path:
    """Where a log's records are."""
    return log.with_name(f"{log.name}.times")


@dataclass(frozen=True, slots=True)
class Times:
    """Of the lines of a log. Times are nanoseconds since the epoch, and may go back, as clocks do."""

    offsets: Sequence[int] = ()
    nanos: Sequence[int] = ()

    @property
    def end(self) -> int:
        """Of what begins there or behind it, no record tells."""
        return self.offsets[-1] if self.offsets else 0

    def at(self, offset: int, last: int) -> tuple[int, int | None]:
        """When the line that begins there was written, and up to where lines have that time. `last`: when the log was
        written last, which is the time, for all that may come, of what no record tells."""
        index = bisect_right(self.offsets, offset)
        return (self.nanos[index], self.offsets[index]) if index < len(self.nanos) else (last, None)

    def behind(self, time: int, last: int) -> int | None:
        """At which offset or behind it those lines begin that were written at that time or later; None when there are
        none yet."""
        for index, nanos in enumerate(self.nanos):
            if nanos >= time:
                return self.offsets[index - 1] if index else 0
        return self.end if last >= time else None


def note(log: Path, noted: int = 0) -> int:
    """Record how long a log is, unless it is `noted` already. What is noted now. A log that is gone is fine.

    Raises OSError, HostProblem(NOT_A_REGULAR_FILE)."""
    try:
        status = os.stat(log, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if status.st_size in (noted, 0):
        return status.st_size
    with open_log(beside(log), "ab+") as index:
        file = index.fileno()
        length = os.fstat(file).st_size
        whole = length // _RECORD.size * _RECORD.size
        last = _read(file, whole, 1)
        if last and last[0][0] == status.st_size:
            return status.st_size
        if last and last[0][0] > status.st_size:  # of a log that is gone
            whole = 0
        if whole >= _MOST_BYTES:
            _rewrite(log, _needed(log, _sensible(_read(file, whole, MOST_RECORDS), status.st_size)))
        elif whole != length:
            os.ftruncate(file, whole)
        os.write(file, _RECORD.pack(status.st_size, status.st_mtime_ns))
    return status.st_size


def forget(log: Path) -> None:
    """Of a log that goes, so do the records."""
    beside(log).unlink(missing_ok=True)


def read(log: Path, length: int) -> Times:
    """Of a log that is so long. Raises OSError, HostProblem(NOT_A_REGULAR_FILE)."""
    records = _of(log, length)
    return Times([offset for offset, _ in records], [nanos for _, nanos in records])


def marks(log: Path) -> Records:
    """The records with how much was written behind each, which is the same wherever the text is moved to.

    Raises OSError, HostProblem(NOT_A_REGULAR_FILE)."""
    with open_log(log, "rb") as file:
        pieces = bounded_log.written(file.fileno())
        length = os.fstat(file.fileno()).st_size
    found, behind = [], 0
    for offset, nanos in reversed(_of(log, length)):
        while pieces and pieces[-1][0] >= offset:
            start, stop = pieces.pop()
            behind += stop - start
        found.append((behind + max(0, pieces[-1][1] - offset if pieces else 0), nanos))
    return found[::-1]


def move(log: Path, marks: Records) -> None:
    """The log's text has gone to where the log ends now. Raises OSError, HostProblem(NOT_A_REGULAR_FILE)."""
    end = os.stat(log).st_size
    moved = [(end - behind, nanos) for behind, nanos in marks if behind <= bounded_log.KEPT_BYTES]
    if moved:
        _rewrite(log, moved)


def _of(log: Path, length: int) -> Records:
    try:
        with open_log(beside(log), "rb") as index:
            size = os.fstat(index.fileno()).st_size
            return _sensible(_read(index.fileno(), size // _RECORD.size * _RECORD.size, MOST_RECORDS), length)
    except FileNotFoundError:
        return []


def _read(file: int, end: int, most: int) -> Records:
    begin = max(0, end - most * _RECORD.size)
    data = os.pread(file, end - begin, begin)
    return list(_RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size]))


def _sensible(records: Records, length: int) -> Records:
    """Each is beyond the one before, and none beyond the log."""
    found: Records = []
    for offset, nanos in records:
        if (found[-1][0] if found else 0) < offset <= length:
            found.append((offset, nanos))
    return found


def _needed(log: Path, records: Records) -> Records:
    """No more than three quarters: what was forgotten needs none, and of the older half every other one will do."""
    with open_log(log, "rb") as file:
        begin = bounded_log.written_behind(file.fileno(), 0)[0]
    records = [record for record in records if record[0] > begin]
    half = MOST_RECORDS // 2
    if len(records) > half:
        older, newer = records[:-half], records[-half:]
        records = older[1::2] + newer
    return records


def _rewrite(log: Path, records: Records) -> None:
    """Over what is there, since closing a file that was cut to nothing may wait for the disk (on ext4). Who is killed
    in between leaves old records behind the new ones, which are passed over."""
    data = b"".join(_RECORD.pack(*record) for record in records)
    with open_log(beside(log), "rb+") as index:
        os.pwrite(index.fileno(), data, 0)
        os.ftruncate(index.fileno(), len(data))
