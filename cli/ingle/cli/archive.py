"""A guest's tar archive, read forwards as it comes.

Not by tarfile, which follows chains of headers by recursion, searches a header anew for each of its records, and keeps
all that global headers say: a guest is hostile. What an agent writes is far less than tar knows (ustar headers, each
with one PAX header at most, and sparse files of GNU tar's format 1.0), so that is all there is here, and it is bounded:
what describes an entry in bytes, in time by its bytes, and its names as the kernel bounds them.
"""

import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

LONGEST_NAME = 4095
"""Bytes of a name; PATH_MAX without its end."""

_BLOCK = tarfile.BLOCKSIZE
_LARGEST_DESCRIPTION = 1024 * 1024
"""Bytes of headers, and of a sparse file's map, before the content of one entry; and of padding behind the last."""

_NUMBER = re.compile(r"\d{1,19}")
_TIME = re.compile(r"(-?)(\d{1,18})(?:\.(\d{1,9})\d{0,99})?")
_TYPES = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


class ArchiveError(ValueError):
    """The archive can't be read any further."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`type`: as in the mode of stat(2); 0: a hard link. `segments`: where a file has data, (offset, size) each, in
    order. Names hold bytes that are no UTF-8 as Python's names of files do."""

    name: str
    type: int
    mode: int
    uid: int
    gid: int
    modified_nanoseconds: int
    size: int = 0
    segments: list[tuple[int, int]] = field(default_factory=list)
    link: str = ""
    device: tuple[int, int] = (0, 0)
    records: dict[str, str] = field(default_factory=dict)


class Archive:
    """`entries` gives one after the other, and `content` what the present one holds. Both raise ArchiveError."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")
        self._left = 0  # of the present entry
        self._padding = 0
        self._described = 0

    def entries(self) -> Iterator[Entry]:
        """All of them. Content that nobody took is left out."""
        while (header := self._header()) is not None:
            records: dict[str, str] = {}
            if header.type == tarfile.XHDTYPE:
                records = _records(self._description(header.size))
                self._description(-header.size % _BLOCK)
                header = self._header()
                if header is None:
                    raise ArchiveError("it ends behind the head of an entry")
            yield self._entry(header, records)
            for _ in self.content(self._left):
                pass
            if sum(map(len, self._take(self._padding))) < self._padding:
                raise ArchiveError("it ends in the middle")
            self._described = 0
        while (behind := next(self._pieces, None)) is not None:
            self._describe(len(behind))

    def content(self, size: int) -> Iterator[memoryview]:
        """The next so many bytes of the present entry's data, which is all segments one behind the other."""
        for piece in self._take(size):
            self._left -= len(piece)
            size -= len(piece)
            yield piece
        if size or self._left < 0:
            raise ArchiveError("it ends in the middle of a file")

    def _entry(self, header: tarfile.TarInfo, records: dict[str, str]) -> Entry:
        name, size = records.get("path", header.name), _number(records.get("size"), header.size)
        if header.type not in _TYPES and header.type != tarfile.LNKTYPE:
            raise ArchiveError(f"it has an entry of type {header.type!r}")
        kind = _TYPES.get(header.type, 0)
        if size < 0 or (size > 0 and kind != stat.S_IFREG):
            raise ArchiveError(f"it has an entry of type {header.type!r} and {size} bytes")
        self._left, self._padding = size, -size % _BLOCK
        segments = [(0, size)]
        if "GNU.sparse.major" in records:
            name, size = records.get("GNU.sparse.name", name), _number(records.get("GNU.sparse.realsize"), -1)
            segments = self._map(size)
        link = records.get("linkpath", header.linkname)
        for text in (name, link):
            if len(text.encode(errors="surrogateescape")) > LONGEST_NAME or "\0" in text:
                raise ArchiveError(f"it has a name of {len(text)} characters, or with a NUL")
        return Entry(
            name=name,
            type=kind,
            mode=header.mode & 0o7777,
            uid=_number(records.get("uid"), header.uid),
            gid=_number(records.get("gid"), header.gid),
            modified_nanoseconds=_nanoseconds(records.get("mtime"), header.mtime),
            size=size,
            segments=segments,
            link=link,
            device=(header.devmajor, header.devminor),
            records=records,
        )

    def _header(self) -> tarfile.TarInfo | None:
        """The next block; None: the end of the archive."""
        block = self._description(_BLOCK)
        if block == bytes(_BLOCK):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ArchiveError(str(error)) from error

    def _map(self, size: int) -> list[tuple[int, int]]:
        """Where a sparse file has data: how many segments, then offset and size of each, one number a line, padded; see
        the GNU tar manual, "PAX Format, Version 1.0"."""
        numbers: list[int] = []
        line = b""
        while len(numbers) < 1 or len(numbers) < 1 + 2 * numbers[0]:
            if self._left < _BLOCK:
                raise ArchiveError("the map of a sparse file is longer than it")
            self._left -= _BLOCK
            *lines, line = (line + self._description(_BLOCK)).split(b"\n")
            numbers += [_number(text.decode("latin-1"), -1) for text in lines]
        found = list(zip(numbers[1 : 1 + 2 * numbers[0] : 2], numbers[2 : 1 + 2 * numbers[0] : 2], strict=True))
        end = 0
        for offset, length in found:
            if offset < end or length < 0:
                raise ArchiveError("the map of a sparse file goes backwards")
            end = offset + length
        if end > size or sum(length for _, length in found) != self._left:
            raise ArchiveError("the map of a sparse file is not that of its data")
        return found

    def _description(self, size: int) -> bytes:
        """So many bytes that describe an entry."""
        self._describe(size)
        taken = b"".join(self._take(size))
        if len(taken) < size:
            raise ArchiveError("it ends in the middle")
        return taken

    def _describe(self, size: int) -> None:
        self._described += size
        if self._described > _LARGEST_DESCRIPTION:
            raise ArchiveError(f"more than {_LARGEST_DESCRIPTION} bytes describe one file")

    def _take(self, size: int) -> Iterator[memoryview]:
        """Pieces of so many bytes, fewer where the archive breaks off."""
        while size > 0:
            while not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    return
                self._rest = memoryview(piece)
            taken, self._rest = self._rest[:size], self._rest[size:]
            size -= len(taken)
            yield taken


def _records(body: bytes) -> dict[str, str]:
    """Those of a PAX header: "LENGTH KEY=VALUE" and a line end each, where the length counts all of that."""
    records: dict[str, str] = {}
    position = 0
    while position < len(body):
        digits, blank, _ = body[position : position + 8].partition(b" ")
        length = int(digits) if blank and digits.isdigit() else 0
        record = body[position : position + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not key or not equals or len(record) < length or record[-1:] != b"\n":
            raise ArchiveError("a PAX header is no list of records")
        records[key.decode(errors="surrogateescape")] = value.decode(errors="surrogateescape")
        position += length
    return records


def _number(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if not _NUMBER.fullmatch(text):
        raise ArchiveError("a number in it is none")
    return int(text)


def _nanoseconds(text: str | None, seconds: float) -> int:
    if text is None:
        return int(seconds) * 10**9
    exact = _TIME.fullmatch(text)
    if exact is None:
        raise ArchiveError("a time in it is none")
    sign, whole, fraction = exact.groups()
    return (int(whole) * 10**9 + int((fraction or "").ljust(9, "0"))) * (-1 if sign else 1)
