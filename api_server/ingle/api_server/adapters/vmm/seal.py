"""Whether the files of a saved memory are as they were written.

A VMM believes what it reads: where a byte of it has changed, most often a guest goes on that is another one. So there
is a `seal` beside the files, with their sizes and checksums. It tells damage, and not whose the files are: who takes
them from somebody else needs more than that.
"""

import asyncio
import json
import os
import threading
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

from ingle.api_server.host.files import data_ranges, disk_full_reported, new_file, sync_directory, write_atomically
from ingle.api_server.host.threads import Stop, in_stoppable_thread, in_thread
from ingle.api_server.model.errors import Reason, ToolFailed

SEAL = "seal"
_VERSION = 1
_MODE = 0o600
_BLOCK = 64 * 1024
_GROWS_SECONDS = 0.002
_SETTLES_SECONDS = 0.03
_ZEROS = bytes(_BLOCK)
_MOST_MEASURED = 1000

_Contents = tuple[int, int]
"""Size and checksum."""
_Identity = tuple[int, ...]


async def write(directory: Path, *files: Path) -> None:
    """Make files in `directory`, their names and a seal on them durable: it takes the place of the one that was there.
    Raises HostProblem(DISK_FULL), OSError."""
    await in_stoppable_thread(_write, directory, files)


@asynccontextmanager
async def sealing(file: Path) -> AsyncIterator[None]:
    """As `write`, of a file that is written in the block, from its beginning to its end. What is there already is read
    and made durable meanwhile, so that little is left in the end. No seal is there before. Nothing is sealed where the
    block fails."""
    stop, whole = Stop(), threading.Event()
    measuring = asyncio.ensure_future(in_thread(_measure, stop, file, whole))
    settling = asyncio.ensure_future(in_thread(_settle, file, whole))
    try:
        yield
        whole.set()
        contents = await measuring
        await asyncio.gather(settling, in_thread(_put_first, file.parent, {file.name: contents}))
    except BaseException:
        stop.ask()
        whole.set()
        await asyncio.gather(measuring, settling, return_exceptions=True)
        raise


def names(directory: Path) -> frozenset[str]:
    """Of the files that the seal there is on. Raises ToolFailed(VMM_FAILED) where there is none, or a broken one."""
    return frozenset(_read(directory))


class Seals:
    """A file that was read once is not read again while nobody touches it: of a memory that many VMs have in common
    only the first one takes that long."""

    def __init__(self) -> None:
        self._measured: dict[_Identity, _Contents] = {}

    async def check(self, directory: Path) -> None:
        """Raise ToolFailed(VMM_FAILED) unless the files there are what was sealed."""
        await in_stoppable_thread(self._check, directory)

    def _check(self, stop: Stop, directory: Path) -> None:
        for name, sealed in _read(directory).items():
            try:
                found = self._contents(stop, directory / name)
            except OSError as error:
                raise _damaged(directory, f"{name}: {error.strerror}") from error
            if found != sealed:
                raise _damaged(directory, f"{name} is not as it was written")

    def _contents(self, stop: Stop, file: Path) -> _Contents:
        status = file.stat()
        which = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        found = self._measured.get(which)
        if found is None:
            found = _measure(stop, file)
            if len(self._measured) >= _MOST_MEASURED:
                self._measured.clear()
            self._measured[which] = found
        return found


def _read(directory: Path) -> dict[str, _Contents]:
    try:
        told = json.loads((directory / SEAL).read_bytes())
        if told["version"] != _VERSION:
            raise _damaged(directory, f"its version is {told['version']!r}; {_VERSION} is what this ingle knows")
        return {str(name): (int(size), int(checksum)) for name, (size, checksum) in told["files"].items()}
    except OSError as error:
        raise _damaged(directory, f"{SEAL}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(directory, f"its {SEAL} makes no sense") from error


def _damaged(directory: Path, why: str) -> ToolFailed:
    return ToolFailed(Reason.VMM_FAILED, f"the memory in {directory} can't be gone on from: {why}")


def _write(stop: Stop, directory: Path, files: tuple[Path, ...]) -> None:
    contents = {file.name: _measure(stop, file) for file in files}
    for file in files:
        _sync(file)
    _put(directory, contents)


def _put(directory: Path, contents: Mapping[str, _Contents]) -> None:
    write_atomically(directory / SEAL, _told(contents), _MODE)


def _put_first(directory: Path, contents: Mapping[str, _Contents]) -> None:
    """Where there is none yet: a power cut may leave half of it, as of the files. To be told of a name the disk has to
    be waited for once less than to have one name take another's place."""
    with new_file(directory / SEAL, _MODE) as descriptor:
        os.write(descriptor, _told(contents))
        os.fsync(descriptor)
        sync_directory(directory)


def _told(contents: Mapping[str, _Contents]) -> bytes:
    return json.dumps({"version": _VERSION, "files": contents}).encode()


def _settle(file: Path, whole: threading.Event) -> None:
    """Of a file that grows until then, what is there goes to the disk already."""
    while not whole.wait(_SETTLES_SECONDS):
        _sync(file)
    _sync(file)


def _sync(file: Path) -> None:
    with disk_full_reported(file.parent), open(file, "rb") as opened:
        os.fsync(opened.fileno())


def _measure(stop: Stop, file: Path, whole: threading.Event | None = None) -> _Contents:
    """With `whole`, of a file that grows until that is set."""
    checksum = _Checksum()
    with open(file, "rb", buffering=0) as opened:
        while whole is not None and not whole.wait(_GROWS_SECONDS):
            checksum.read(stop, opened, os.fstat(opened.fileno()).st_size // _BLOCK * _BLOCK)
        size = os.fstat(opened.fileno()).st_size
        checksum.read(stop, opened, size)
    return size, checksum.value


class _Checksum:
    """Of a file's blocks with their offsets. Those of zeros do not count, since holes, which are the same, are not
    read. It is no hash that nobody could forge, which would take a wake as long again as all the rest of it."""

    def __init__(self) -> None:
        self.value = 0
        self._behind = 0
        self._block = bytearray(_BLOCK)

    def read(self, stop: Stop, file: FileIO, end: int) -> None:
        """Up to there, from where the last call has ended."""
        for start, stop_at in data_ranges(file.fileno(), end):  # one that has grown may reach further
            for offset in range(max(start // _BLOCK * _BLOCK, self._behind), min(stop_at, end), _BLOCK):
                stop.check()
                file.seek(offset)
                read = file.readinto(self._block)
                self._block[read:] = _ZEROS[read:]
                if self._block != _ZEROS:
                    self.value = zlib.crc32(self._block, zlib.crc32(offset.to_bytes(8, "big"), self.value))
                self._behind = offset + _BLOCK
