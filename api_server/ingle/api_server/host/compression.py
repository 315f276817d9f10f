"""Reading compressed files: which compression it is, told by its first bytes, and the content in chunks.

Kernels, kernel modules and tar archives come in all of them. Nothing here trusts its input: a chunk never has more
than a few tens of MiB, whatever the input claims, and how many chunks are too many is for the caller to say.
"""

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Protocol, TypeVar

import lz4.block  # type: ignore[import-untyped]
import lz4.frame  # type: ignore[import-untyped]
import zstandard

CHUNK = 1 << 20
"""What most chunks have at least, in bytes."""

_MAGICS: Mapping[bytes, str] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x5d\0\0": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4-legacy",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x89LZO\0\r\n\x1a\n": "lzo",
}
"""First bytes, as in the kernel's scripts/extract-vmlinux and in file(1)'s magic."""

MAGIC_LENGTH = max(map(len, _MAGICS))

# Two bytes of gzip may stand for 2 KiB, and four of zstd for 128: little input at a time keeps the output of it small.
_INPUT = 2048

_LZ4_LEGACY_BLOCK = 8 << 20


class Corrupt(ValueError):
    """The data ends early or is not what its first bytes say."""


class Unsupported(ValueError):
    """A compression we know by name only."""


def compression_of(head: bytes) -> str | None:
    """The compression of data that begins with `head` (at least MAGIC_LENGTH bytes), or None."""
    return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)


def decompressed(file: BinaryIO) -> Iterator[bytes]:
    """The content of a seekable file from its present position, in chunks; as it is when it is not compressed.

    What follows the compressed data is ignored. Raises Corrupt, Unsupported."""
    head = file.read(MAGIC_LENGTH)
    file.seek(-len(head), io.SEEK_CUR)
    name = compression_of(head)
    reader = _READERS.get(name)
    if reader is None:
        raise Unsupported(f"{name} compression is not supported; use gzip, bzip2, xz, lzma, lz4 or zstd")
    try:
        yield from _coalesced(reader(file))
    except _CORRUPT as error:
        raise Corrupt(f"the {name} data is corrupt: {error}") from error


def _coalesced(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece


class _Member(Protocol):
    """A decompressor of one gzip member, xz stream or zstd frame, as zlib, bz2, lzma and zstandard all have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Limited(_Member, Protocol):
    """One that can be told how much to give at a time."""

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


M = TypeVar("M", bound=_Member)


def _at_once(member: _Member, data: bytes) -> Iterator[bytes]:
    yield member.decompress(data)


def _in_pieces(member: _Limited, data: bytes) -> Iterator[bytes]:
    yield member.decompress(data, CHUNK)
    while not (member.eof or member.needs_input):
        yield member.decompress(b"", CHUNK)


def _members(file: BinaryIO, begin: Callable[[], M], feed: Callable[[M, bytes], Iterator[bytes]]) -> Iterator[bytes]:
    """All members, one after another. The file objects of the libraries won't do: some take a truncated member for a
    complete one, some what follows the last member for a corrupt one more."""
    member = begin()
    data = file.read(_INPUT)
    name = compression_of(data)
    while True:
        yield from feed(member, data)
        if member.eof:
            data = (member.unused_data or b"") + file.read(_INPUT)
            if compression_of(data) != name:
                return
            member = begin()
        else:
            data = file.read(_INPUT)
            if not data:
                raise EOFError("it ends too early")


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    return _members(file, lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16), _at_once)


def _bzip2(file: BinaryIO) -> Iterator[bytes]:
    return _members(file, bz2.BZ2Decompressor, _in_pieces)


def _xz(file: BinaryIO) -> Iterator[bytes]:
    return _members(file, lzma.LZMADecompressor, _in_pieces)


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    return _members(file, lambda: zstandard.ZstdDecompressor().decompressobj(), _at_once)


def _lz4(file: BinaryIO) -> Iterator[bytes]:
    return _members(file, lz4.frame.LZ4FrameDecompressor, _in_pieces)


def _lz4_legacy(file: BinaryIO) -> Iterator[bytes]:
    """Blocks of at most 8 MiB, each after its compressed size (little-endian); see lz4_Frame_format.md, "Legacy frame".

    Linux puts the uncompressed size after the last block, which reads like the size of one more that isn't there."""
    file.read(4)
    while len(head := file.read(4)) == 4:
        (size,) = struct.unpack("<I", head)
        block = file.read(size)
        if not block:
            return
        if len(block) < size:
            raise EOFError("it ends too early")
        yield lz4.block.decompress(block, uncompressed_size=_LZ4_LEGACY_BLOCK)


_READERS: Mapping[str | None, Callable[[BinaryIO], Iterator[bytes]]] = {
    None: _plain,
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "lzma": _xz,
    "lz4": _lz4,
    "lz4-legacy": _lz4_legacy,
    "zstd": _zstd,
}

_CORRUPT = (
    EOFError,
    zlib.error,
    OSError,  # bz2
    lzma.LZMAError,
    zstandard.ZstdError,
    lz4.block.LZ4BlockError,
    RuntimeError,  # lz4.frame
)
