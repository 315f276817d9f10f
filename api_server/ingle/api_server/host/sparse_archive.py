"""Sparse files in one stream, under zstd: what has holes here has them there, and takes no room on the way.

    magic | head | file* | end

    head    u32 length, that many bytes, which mean something to who wrote them
    file    u8 length of its name (not 0), name, u64 size, extent*, u32 0, content digest
    extent  u32 length (not 0), u64 offset, that many bytes; each behind the one before and within the size
    end     u8 0, SHA-256 of the head and of what tells each file from others: its name, and its digest in hex

Integers are big-endian; a content digest is that of `files.content_digest`. A reader believes nothing: every length is
bounded before anything of that length is read, an extent can't be outside its file, and what was written is read again
for its digest. Whatever is compressed well grows no further than the sizes that whoever receives it has agreed to.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import zstandard

from ingle.api_server.host import files
from ingle.api_server.host.threads import Stop
from ingle.api_server.model.errors import BadFile, Reason

MAGIC = b"ingle sparse archive 1\n"
LONGEST_HEAD = 64 * 1024
LONGEST_NAME = 100
MOST_FILES = 16

_LEVEL = 3
_WINDOW = 8 * 1024 * 1024  # a reader takes as much memory; level 3 needs a quarter
_EXTENT = 1 << 20
_DIGEST = 32
_U8, _U32, _U64 = struct.Struct(">B"), struct.Struct(">I"), struct.Struct(">Q")


class Entry(NamedTuple):
    """A file that goes in, and what it is called there."""

    name: str
    path: Path


def write(sink: BinaryIO, head: bytes, entries: Sequence[Entry], stop: Stop) -> None:
    """Write all of it. Nobody may change the files meanwhile. Raises ValueError for a head or names that no reader
    takes, OSError."""
    if len(head) > LONGEST_HEAD or len(entries) > MOST_FILES:
        raise ValueError("more than a reader takes")
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    with compressor.stream_writer(sink, closefd=False) as out:
        out.write(MAGIC + _U32.pack(len(head)) + head)
        digests = {entry.name: _write_file(out, entry, stop) for entry in entries}
        out.write(_U8.pack(0) + _seal(head, digests))


def _seal(head: bytes, digests: Mapping[str, str]) -> bytes:
    seal = hashlib.sha256(_U32.pack(len(head)) + head)
    for name, digest in digests.items():
        seal.update(f"{name}\0{digest}\0".encode())
    return seal.digest()


def _write_file(out: zstandard.ZstdCompressionWriter, entry: Entry, stop: Stop) -> str:
    name = entry.name.encode()
    if not 0 < len(name) <= LONGEST_NAME:
        raise ValueError(f"a name of {len(name)} bytes")
    with open(entry.path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        out.write(_U8.pack(len(name)) + name + _U64.pack(size))
        for at, data in _extents(file.fileno(), size):
            stop.check()
            out.write(_U32.pack(len(data)) + _U64.pack(at))
            out.write(data)
    digest = files.content_digest(entry.path, stop)
    out.write(_U32.pack(0) + bytes.fromhex(digest))
    return digest


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    for start, end in files.data_ranges(descriptor, size):
        at = start
        while at < end:
            data = os.pread(descriptor, min(_EXTENT, end - at), at)
            if not data:  # it became shorter: the digest tells
                return
            if data.count(0) != len(data):
                yield at, data
            at += len(data)


class Reader:
    """Reads what `write` has written, of anybody's making. Every method raises BadFile(ARCHIVE_INVALID) for what is
    something else, and whatever `source.read` raises."""

    def __init__(self, source: BinaryIO) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._source = source
        self._head = b""
        self._stream = decompressor.stream_reader(source, read_across_frames=False, closefd=False)

    def head(self) -> bytes:
        """What comes first: before any file is taken, who receives them can say no."""
        if self._exactly(len(MAGIC)) != MAGIC:
            raise _invalid("it is no such archive")
        self._head = self._exactly(self._number(_U32, LONGEST_HEAD, "bytes of head"))
        return self._head

    def receive(self, place: Callable[[str, int], Path], stop: Stop) -> dict[str, str]:
        """Make all files, each where `place` says for its name and size; answers their content digests by name. `place`
        raises what it likes for a file that it does not want. A failure leaves the file that it happened in not
        there, and those before it."""
        digests: dict[str, str] = {}
        while length := self._number(_U8, LONGEST_NAME, "bytes of a name"):
            if len(digests) == MOST_FILES:
                raise _invalid(f"it has more than {MOST_FILES} files")
            name = self._name(length)
            if name in digests:
                raise _invalid(f"{name} comes twice")
            (size,) = _U64.unpack(self._exactly(_U64.size))
            digests[name] = self._receive_file(name, place(name, size), size, stop)
        if self._exactly(_DIGEST) != _seal(self._head, digests):
            raise _invalid("its head is not what the hash at its end says")
        if self._read(1) or self._source.read(1):
            raise _invalid("something follows its end")
        return digests

    def _name(self, length: int) -> str:
        try:
            return self._exactly(length).decode("ascii")
        except UnicodeDecodeError:
            raise _invalid("a name is not ASCII") from None

    def _receive_file(self, name: str, path: Path, size: int, stop: Stop) -> str:
        with files.new_file(path, 0o600) as descriptor:
            os.ftruncate(descriptor, size)
            end = 0
            while length := self._number(_U32, _EXTENT, "bytes of an extent"):
                stop.check()
                (at,) = _U64.unpack(self._exactly(_U64.size))
                if at < end or at + length > size:
                    raise _invalid(f"{name}: an extent is where none can be")
                end = at + length
                _pwrite(descriptor, self._exactly(length), at)
            told, digest = self._exactly(_DIGEST).hex(), files.content_digest(path, stop)
            if told != digest:
                raise _invalid(f"{name}: its content is not what its hash says")
        return digest

    def _number(self, kind: struct.Struct, most: int, what: str) -> int:
        number: int = kind.unpack(self._exactly(kind.size))[0]
        if number > most:
            raise _invalid(f"{number} {what}, and {most} is the most")
        return number

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._read(size - len(data))
            if not piece:
                raise _invalid("it ends in the middle")
            data += piece
        return data

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except zstandard.ZstdError as error:
            raise _invalid(f"it can't be decompressed: {error}") from None


def _pwrite(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _invalid(why: str) -> BadFile:
    return BadFile(Reason.ARCHIVE_INVALID, f"the archive is damaged, or none of ingle's: {why}")
