"""Implements ports.disk_survey.DiskSurvey."""

import asyncio
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ingle.api_server.host import bounded_log
from ingle.api_server.host.extents import shared_bytes
from ingle.api_server.host.files import open_log
from ingle.api_server.host.threads import Stop, in_stoppable_thread, in_thread
from ingle.api_server.model.errors import HostProblem
from ingle.api_server.ports.disk_survey import Measure, Room, Survey

_MOST_FILES = 200_000
_BLOCK = 512


class HostDiskSurvey:
    """By stat, which tells what a file takes without reading it."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()

    async def measure(self, paths: Sequence[Path], *, unopened: Collection[Path] = ()) -> Survey:
        async with self._one_at_a_time:
            return await in_stoppable_thread(_measure, paths, unopened)

    async def taken(self, files: Sequence[Path]) -> Mapping[Path, int]:
        return await in_thread(lambda: {path: _taken(path) for path in files})

    def room(self, path: Path) -> Room:
        path = next(place for place in (path, *path.parents) if place.exists())
        found = os.statvfs(path)
        return Room(os.stat(path).st_dev, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def _taken(path: Path) -> int:
    try:
        return os.lstat(path).st_blocks * _BLOCK
    except OSError:
        return 0


def _measure(stop: Stop, paths: Sequence[Path], unopened: Collection[Path]) -> Survey:
    left = _MOST_FILES
    measures = {}
    for path in paths:
        total = Measure()
        for file, status in _below(stop, path):
            if left == 0:
                break
            left -= 1
            total += Measure(
                _size(file, status), status.st_blocks * _BLOCK, 0, 0 if stat.S_ISDIR(status.st_mode) else 1
            )
        if total.files == 1 and path.is_file() and path not in unopened:
            total += Measure(shared=shared_bytes(path))
        measures[path] = total
    return Survey(measures, whole=left > 0)


def _size(file: Path, status: os.stat_result) -> int:
    """Of a log, what it has been left: the rest is holes, which grow for as long as it is written."""
    is_log = ".log" in file.suffixes and stat.S_ISREG(status.st_mode)
    if is_log and status.st_blocks * _BLOCK < status.st_size:
        with suppress(OSError, HostProblem), open_log(file, "rb") as log:
            return sum(end - start for start, end in bounded_log.written(log.fileno()))
    return status.st_size


def _below(stop: Stop, path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The file, or the directory and all that is in it. Links are not followed; what goes meanwhile is not there."""
    waiting: list[str | Path] = [path]
    while waiting:
        stop.check()
        path = Path(waiting.pop())
        try:
            status = os.lstat(path)
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                with os.scandir(path) as entries:
                    waiting.extend(entry.path for entry in entries)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
