"""Local files as a tar archive for a guest: PAX format, times to the nanosecond, attributes, holes as holes."""

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import IO, Protocol, cast

from ingle.cli.attributes import read_attributes
from ingle.cli.errors import failed

_CHUNK = 256 * 1024
_MOST_UNTOLD = 16 * 1024 * 1024  # bytes kept in memory to learn the size of a file
_MOST_SEGMENTS = 10_000  # of a sparse file; what is behind the last one is packed as it reads
_KINDS = {stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE}

Told = Callable[[str, int], None]
"""Is told of each entry: its name and how many bytes of content it has."""


@dataclass
class LeftOut:
    """What did not become part of a copy."""

    files: list[str] = field(default_factory=list)
    attributes: int = 0


class TarFile(tarfile.TarFile):
    """Keeps all entries in mind; a copy of a million files clears this now and then."""

    members: list[tarfile.TarInfo]


class Sink(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes) -> int:
        """Take all of the data."""


def pack(source: Path, name: str, sink: Sink, told: Told) -> LeftOut:
    """Write a file or directory as an archive in which it is called `name`. Sockets are left out.

    Raises CliError for what can't be read."""
    return _pack([(source, name)], sink, told, for_server=False)


def pack_for_server(sources: Sequence[tuple[Path, str]], sink: Sink, told: Told) -> LeftOut:
    """The same for an image or a kernel, which any tar can read. An ordinary user's files become root's, or nothing in
    a guest could use them; and what is mounted inside is refused."""
    return _pack(sources, sink, told, for_server=True)


def _pack(sources: Sequence[tuple[Path, str]], sink: Sink, told: Told, *, for_server: bool) -> LeftOut:
    buffer = _Buffer(sink)
    try:
        with TarFile(
            fileobj=cast("IO[bytes]", buffer),
            mode="w",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
            copybufsize=_CHUNK,
        ) as archive:
            packer = _Packer(archive, told, for_server=for_server)
            for source, name in sources:
                packer.begin(source)
                packer.add(source, name)
    except OSError as error:
        why = error.strerror or "it shrank while it was read"
        raise failed("INVALID_ARGUMENT", f"{error.filename or source}: {why}") from error
    buffer.flush()
    return packer.left_out


class _Buffer:
    """A sink that is given large pieces only."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._pieces: list[bytes] = []
        self._size = 0
        self._flushed = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _CHUNK:
            self.flush()
        return len(data)

    def tell(self) -> int:
        return self._flushed + self._size

    def flush(self) -> None:
        self._sink.write(b"".join(self._pieces))
        self._flushed += self._size
        self._pieces.clear()
        self._size = 0


class _Packer:
    """An archive being written."""

    def __init__(self, archive: TarFile, told: Told, *, for_server: bool) -> None:
        self.left_out = LeftOut()
        self._for_server = for_server
        self._device = 0
        self._archive = archive
        self._told = told
        # Names of files that other names link to.
        self._seen: dict[tuple[int, int], str] = {}

    def begin(self, source: Path) -> None:
        """What follows is that, with all that is in it."""
        self._device = source.lstat().st_dev

    def add(self, path: Path, name: str) -> None:
        """Add a file, or a directory with all that is in it, however deep that is."""
        pending = self._add(path, name)[::-1]
        while pending:
            path, name = pending.pop()
            try:
                pending += self._add(path, name)[::-1]
            except FileNotFoundError:  # what was removed while we copied is none of the copy
                if os.path.lexists(path):
                    raise

    def _add(self, path: Path, name: str) -> list[tuple[Path, str]]:
        """Add one thing; answers what is in it, and how that is to be called."""
        facts = path.lstat()
        member = _member(name, facts)
        if self._for_server:
            self._check_same_device(path, facts)
            if os.geteuid() != 0:
                member.uid = member.gid = 0
        match stat.S_IFMT(facts.st_mode):
            case stat.S_IFDIR:
                return self._add_directory(path, member)
            case stat.S_IFREG:
                self._add_file(path, member)
            case stat.S_IFLNK:
                member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
                self._begin(member)
            case kind if kind in _KINDS:
                member.type = _KINDS[kind]
                member.devmajor, member.devminor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
                self._begin(member)
            case _:
                self.left_out.files.append(str(path))  # a socket is nothing without its listener
        return []

    def _check_same_device(self, path: Path, facts: os.stat_result) -> None:
        if facts.st_dev != self._device:  # /proc, say: it has no end
            raise failed("INVALID_ARGUMENT", f"something is mounted at {path}", f"sudo umount {path}")

    def _add_directory(self, path: Path, member: tarfile.TarInfo) -> list[tuple[Path, str]]:
        member.type = tarfile.DIRTYPE
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._add_attributes(directory, member)
        finally:
            os.close(directory)
        entries = sorted(path.iterdir())
        self._begin(member)
        return [(entry, f"{member.name}/{entry.name}") for entry in entries]

    def _add_file(self, path: Path, member: tarfile.TarInfo) -> None:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0) as file:
            facts = os.fstat(file.fileno())
            key = facts.st_dev, facts.st_ino
            if key in self._seen:
                member.type, member.linkname = tarfile.LNKTYPE, self._seen[key]
                self._begin(member)
                return
            if facts.st_nlink > 1:
                self._seen[key] = member.name
            self._add_attributes(file.fileno(), member)
            found = segments(file.fileno(), facts)
            if found is None:
                begin, member.size = _measure(file, path)
                self._begin(member, cast("io.FileIO", _Begun(begin, file)))
            else:
                member.size = facts.st_size
                self._add_sparse(file, member, found)

    def _add_sparse(self, file: io.FileIO, member: tarfile.TarInfo, segments: list[tuple[int, int]]) -> None:
        """The map of a file's data, then the data, as in the GNU tar manual, "PAX Format, Version 1.0"."""
        numbers = [len(segments) + 1, *(number for segment in segments for number in segment), member.size, 0]
        table = "".join(f"{number}\n" for number in numbers).encode()
        table += bytes(-len(table) % tarfile.BLOCKSIZE)
        mark = _sparse_for_tar if self._for_server else _sparse_for_agent
        mark(member)
        member.size = len(table) + sum(size for _, size in segments)
        self._begin(member, cast("io.FileIO", _Pieces(_sparse_content(file, table, segments))))

    def _add_attributes(self, file: int, member: tarfile.TarInfo) -> None:
        records, left_out = read_attributes(file)
        member.pax_headers = {**member.pax_headers, **records}
        self.left_out.attributes += left_out

    def _begin(self, member: tarfile.TarInfo, content: io.FileIO | None = None) -> None:
        self._told(member.name, member.size)
        self._archive.addfile(member, content)
        self._archive.members.clear()


def _sparse_for_agent(member: tarfile.TarInfo) -> None:
    """By a record of ours the agent knows that it has to spell no hole out."""
    member.pax_headers = {**member.pax_headers, "INGLE.sparse.size": str(member.size)}


def _sparse_for_tar(member: tarfile.TarInfo) -> None:
    directory, _, name = member.name.rpartition("/")
    records = {"major": "1", "minor": "0", "name": member.name, "realsize": str(member.size)}
    member.pax_headers = {**member.pax_headers, **{f"GNU.sparse.{key}": value for key, value in records.items()}}
    member.name = f"{directory or '.'}/GNUSparseFile.0/{name}"


class _Pieces:
    """Pieces of content as a readable file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class _Begun:
    """A file whose first bytes were read already."""

    def __init__(self, begin: bytes, file: io.FileIO) -> None:
        self._begin = io.BytesIO(begin)
        self._file = file

    def read(self, size: int) -> bytes:
        data = self._begin.read(size)
        return data + (self._file.read(size - len(data)) if len(data) < size else b"")


def _measure(file: io.FileIO, path: Path) -> tuple[bytes, int]:
    """How a file begins, and how much it holds: an archive tells the size first, and a file of the kernel's (/proc,
    /sys) has none that is true. Content that ends within the first chunk is the size. Of a file that is longer the
    kernel's word counts, as of now: what is written behind that meanwhile is none of the copy. Where that is less than
    what was read, the rest is read too."""
    begin = b""
    limit = _CHUNK
    while True:
        while len(begin) < limit and (piece := file.read(limit - len(begin))):
            begin += piece
        size = os.fstat(file.fileno()).st_size
        if len(begin) < limit:
            return begin, len(begin)
        if size > len(begin):
            return begin, size
        if limit == _MOST_UNTOLD:
            message = f"{path}: it says that it holds {size} bytes, and holds more than {limit}"
            raise failed("FILE_TOO_LARGE", message, f"cat {quote(str(path))} | ingle vm file write VM PATH")
        limit = min(2 * limit, _MOST_UNTOLD)


def _member(name: str, facts: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(facts.st_mode)
    member.uid, member.gid = facts.st_uid, facts.st_gid
    member.mtime = facts.st_mtime_ns // 10**9
    seconds, nanoseconds = divmod(abs(facts.st_mtime_ns), 10**9)
    if nanoseconds:
        member.pax_headers = {"mtime": f"{'-' if facts.st_mtime_ns < 0 else ''}{seconds}.{nanoseconds:09}"}
    return member


def segments(file: int, facts: os.stat_result) -> list[tuple[int, int]] | None:
    """Where a file has data, as (offset, size); None when it has no holes."""
    if facts.st_blocks * 512 >= facts.st_size:
        return None
    found: list[tuple[int, int]] = []
    end = 0
    while end < facts.st_size:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # a hole to the end
        full = len(found) == _MOST_SEGMENTS - 1
        end = facts.st_size if full else min(os.lseek(file, begin, os.SEEK_HOLE), facts.st_size)
        if begin < end:
            found.append((begin, end - begin))
    os.lseek(file, 0, os.SEEK_SET)
    return None if found == [(0, facts.st_size)] else found


def _sparse_content(file: io.FileIO, table: bytes, segments: list[tuple[int, int]]) -> Iterator[bytes]:
    yield table
    for offset, size in segments:
        file.seek(offset)
        left = size
        while left > 0 and (piece := file.read(min(left, _CHUNK))):
            left -= len(piece)
            yield piece
