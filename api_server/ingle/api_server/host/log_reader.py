"""Reading a log while it grows, and while its beginning is forgotten: lines with their times."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from ingle.api_server.host import log_times
from ingle.api_server.host.bounded_log import pieces_backwards, written_behind
from ingle.api_server.host.files import open_log
from ingle.api_server.host.log_times import Times

_CHUNK = 64 * 1024
_MISSING = b"\n[ingle: %d bytes are missing here: they came faster than they were read]\n"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNWANTED = -1  # the time of a line that began before what is wanted


class LogReader(AbstractContextManager["LogReader"]):
    """At the beginning of a log, to be read up to a time if one is given. All of it blocks.

    Raises FileNotFoundError, OSError, HostProblem(NOT_A_REGULAR_FILE)."""

    def __init__(self, log: Path, until: datetime | None = None) -> None:
        self._log = log
        self._source = open_log(log, "rb")
        self._file = self._source.fileno()
        self._until = None if until is None else _nanos(until)
        self._position = 0
        self._begun = False
        self._line: int | None = None
        """The time of the line that the position is in the middle of."""
        self._times = Times()
        self._index = (0, 0)
        self.ended = False
        """Whether a line has come that is not before `until`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    @property
    def replaced(self) -> bool:
        """Whether the file is no longer what the log's name stands for."""
        return os.fstat(self._file).st_nlink == 0

    def seek(self, since: datetime | None, tail_lines: int | None) -> None:
        """Go to the first line that was written at that time or later, and behind it to the last so many lines."""
        if since is None and tail_lines is None:
            return
        self._look_at_times()
        end = os.lseek(self._file, 0, os.SEEK_END)
        if since is not None:
            begin = self._times.behind(_nanos(since), self._written_last)
            self._position = end if begin is None else begin
            self._line = None if self._begins_a_line(self._position) else _UNWANTED
        if tail_lines is not None:
            stop = None if self._until is None else self._times.behind(self._until, self._written_last)
            begin = self._last_lines(tail_lines, end if stop is None else stop)
            if begin > self._position:
                self._position, self._line = begin, None

    def read(self) -> list[tuple[bytes, datetime]] | None:
        """What comes next, cut where times change; None at the end of what there is."""
        position = self._position
        start, stop = written_behind(self._file, position)
        data = os.pread(self._file, min(stop - start, _CHUNK), start)
        if not data or self.ended:
            return None
        self._position = start + len(data)
        said = []
        # What is forgotten is the beginning of all that was written; a hole in the middle is where nothing was.
        if self._begun and start > position and start == written_behind(self._file, 0)[0]:
            self._line = None
            said.append((_MISSING % (start - position), _time(self._at(start)[0])))
        self._begun = True
        for piece, time in self._lines(start, data):
            if time != _UNWANTED:
                said.append((piece, _time(time)))
        return said

    def _lines(self, start: int, data: bytes) -> Iterator[tuple[bytes, int]]:
        done = 0
        while done < len(data):
            if self._line is not None:
                time, cut = self._line, data.find(b"\n", done) + 1
            else:
                time, beyond = self._at(start + done)
                if self._until is not None and time >= self._until:
                    self.ended = True
                    return
                cut = 0 if beyond is None else data.find(b"\n", max(done, beyond - start - 1)) + 1
            piece = data[done : cut or len(data)]
            done += len(piece)
            self._line = None if piece.endswith(b"\n") else time
            yield piece, time

    def _at(self, offset: int) -> tuple[int, int | None]:
        if offset >= self._times.end:
            self._look_at_times()
        return self._times.at(offset, self._written_last)

    @property
    def _written_last(self) -> int:
        return os.fstat(self._file).st_mtime_ns

    def _look_at_times(self) -> None:
        try:
            status = os.stat(log_times.beside(self._log), follow_symlinks=False)
        except FileNotFoundError:
            return
        if self._index != (now := (status.st_size, status.st_mtime_ns)):
            self._index = now
            self._times = log_times.read(self._log, os.fstat(self._file).st_size)

    def _begins_a_line(self, offset: int) -> bool:
        return offset == 0 or os.pread(self._file, 1, offset - 1) in (b"\n", b"\0")  # or behind a hole

    def _last_lines(self, lines: int, end: int) -> int:
        """Where the last so many lines before `end` begin."""
        position, wanted = end, lines
        for start, whole in pieces_backwards(self._file, _CHUNK) if lines else ():
            block = whole[: max(0, end - start)]
            # The newline at the very end ends the last line; it does not begin another.
            wanted += position == end and block.endswith(b"\n")
            if not block:
                continue
            position = start
            if (newlines := block.count(b"\n")) < wanted:
                wanted -= newlines
                continue
            offset = len(block)
            for _ in range(wanted):
                offset = block.rindex(b"\n", 0, offset)
            return start + offset + 1
        return position


def _nanos(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000


def _time(nanos: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanos // 1000)
