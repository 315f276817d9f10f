"""What a file has that another one has not, as a file: for two that are alike for the most part, block by block.

    block* | map | trailer

    block    4096 bytes; only those that are neither the base's nor zeros, in their order
    map      a byte for each block of the file, compressed by zlib: as the base has it, one of those above, or zeros
    trailer  u64 size of the file, u64 length of the compressed map, its content digest (files.content_digest), magic

Integers are big-endian. A base is a whole file, or one with deltas over it: a `Stack`. That all of them are as they
were, who uses them sees to; that they belong together, the digest of what comes out tells.
"""

import errno
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from ingle.api_server.host import files
from ingle.api_server.host.threads import Stop

SUFFIX = ".delta"

_BLOCK = 4096
_GROUP = 16  # blocks that are read at once
_GROUP_BYTES = _GROUP * _BLOCK
_SAME, _OWN, _ZERO = 0, 1, 2
_CHANGED = re.compile(rb"\x01+|\x02+")
_ZEROS = bytes(_GROUP_BYTES)
_TRAILER = struct.Struct(">QQ32s8s")
_MAGIC = b"ingledl1"


class Stack(NamedTuple):
    """A whole file, and deltas, each over what is before it."""

    whole: Path
    deltas: tuple[Path, ...] = ()


def write(stop: Stop, file: Path, base: Stack, target: Path) -> None:
    """Write what `file` has that `base` has not into a new file. A failure leaves none.

    Raises HostProblem(DISK_FULL), OSError."""
    digest = files.content_digest(file, stop)
    with (
        open(file, "rb", buffering=0) as opened,
        _layers(base) as layers,
        files.new_file(target, 0o600) as descriptor,
        open(descriptor, "wb", closefd=False) as out,
    ):
        size = os.fstat(opened.fileno()).st_size
        marks = bytearray(-(-size // _BLOCK))
        mine = _groups(opened.fileno(), size)
        for number in sorted(mine | layers.groups(size)):
            stop.check()
            here = _read(opened.fileno(), number) if number in mine else _ZEROS
            there = layers.read(number)
            if here != there:
                for index in range(min(_GROUP, len(marks) - number * _GROUP)):
                    block = here[index * _BLOCK : (index + 1) * _BLOCK]
                    if block == there[index * _BLOCK : (index + 1) * _BLOCK]:
                        continue
                    own = block != _ZEROS[:_BLOCK]
                    marks[number * _GROUP + index] = _OWN if own else _ZERO
                    if own:
                        out.write(block)
        packed = zlib.compress(marks, 1)
        out.write(packed + _TRAILER.pack(size, len(packed), bytes.fromhex(digest), _MAGIC))


def compose(stop: Stop, stack: Stack, target: Path) -> None:
    """Write what a stack comes to into a new file, sharing blocks where the file system can. A failure leaves none.

    Raises HostProblem(DISK_FULL); OSError, also where what comes out is not what once went in."""
    files.duplicate(stack.whole, target)
    try:
        with files.disk_full_reported(target.parent), open(target, "r+b", buffering=0) as out:
            digest = ""
            for path in stack.deltas:
                with _Delta.opened(path) as delta:
                    delta.apply(stop, out.fileno())
                    digest = delta.digest
        if digest and files.content_digest(target, stop) != digest:
            raise OSError(errno.EIO, "it and what it rests on do not belong together", str(stack.deltas[-1]))
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def digest_of(delta: Path) -> tuple[int, str]:
    """Size and content digest of what a delta is of. Raises OSError."""
    with _Delta.opened(delta) as opened:
        return opened.size, opened.digest


class _Delta:
    """An open one."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._descriptor = descriptor
        end = os.fstat(descriptor).st_size - _TRAILER.size
        try:
            self.size, length, digest, magic = _TRAILER.unpack(os.pread(descriptor, _TRAILER.size, max(0, end)))
            if magic != _MAGIC or length > end:
                raise _broken(path)
            self.marks = zlib.decompressobj().decompress(
                os.pread(descriptor, length, end - length), max(1, -(-self.size // _BLOCK))
            )
        except (struct.error, zlib.error, OverflowError) as error:
            raise _broken(path) from error
        self.digest = digest.hex()
        if len(self.marks) != -(-self.size // _BLOCK) or self.marks.count(_OWN) * _BLOCK != end - length:
            raise _broken(path)
        counts = (self.marks.count(_OWN, at, at + _GROUP) for at in range(0, len(self.marks), _GROUP))
        self._before = [0, *accumulate(counts)]

    @staticmethod
    @contextmanager
    def opened(path: Path) -> "Iterator[_Delta]":
        """Raises OSError, also where it is none."""
        with open(path, "rb", buffering=0) as file:
            yield _Delta(path, file.fileno())

    def groups(self) -> set[int]:
        """Of those in which it has something."""
        return {match for found in _CHANGED.finditer(self.marks) for match in _spanned(*found.span())}

    def patch(self, number: int, data: bytes) -> bytes:
        """A group, as it is over what the base has there."""
        marks = self.marks[number * _GROUP : (number + 1) * _GROUP]
        if marks.count(_SAME) == len(marks):
            return data
        patched, at = bytearray(data), 0
        own = os.pread(self._descriptor, marks.count(_OWN) * _BLOCK, self._before[number] * _BLOCK)
        for index, mark in enumerate(marks):
            if mark == _OWN:
                patched[index * _BLOCK : (index + 1) * _BLOCK] = own[at : at + _BLOCK]
                at += _BLOCK
            elif mark == _ZERO:
                patched[index * _BLOCK : (index + 1) * _BLOCK] = _ZEROS[:_BLOCK]
        return bytes(patched)

    def apply(self, stop: Stop, out: int) -> None:
        """To a file that has what the base is."""
        read = 0
        for found in _CHANGED.finditer(self.marks):
            stop.check()
            start, end = found.start() * _BLOCK, found.end() * _BLOCK
            if self.marks[found.start()] == _ZERO:
                files.write_zeros(out, start, end)
            else:
                files.copy_range(self._descriptor, out, read, read + end - start, start)
                read += end - start
        os.ftruncate(out, self.size)


class _Layers:
    """A stack that is open."""

    def __init__(self, whole: int, deltas: Sequence[_Delta]) -> None:
        self._whole = whole
        self._deltas = deltas
        self._size = os.fstat(whole).st_size
        self._mine = _groups(whole, self._size)

    def groups(self, size: int) -> set[int]:
        """Of those of a file of that size in which there may be more than zeros."""
        found = self._mine.union(*(delta.groups() for delta in self._deltas))
        return {group for group in found if group * _GROUP_BYTES < size}

    def read(self, number: int) -> bytes:
        """A group, with zeros behind the end."""
        data = _read(self._whole, number) if number in self._mine else _ZEROS
        for delta in self._deltas:
            data = delta.patch(number, data)
        return data


@contextmanager
def _layers(stack: Stack) -> Iterator[_Layers]:
    with ExitStack() as opened:
        whole = opened.enter_context(open(stack.whole, "rb", buffering=0))
        yield _Layers(whole.fileno(), [opened.enter_context(_Delta.opened(path)) for path in stack.deltas])


def _groups(descriptor: int, size: int) -> set[int]:
    ranges = files.data_ranges(descriptor, size)
    return {group for start, end in ranges for group in range(start // _GROUP_BYTES, -(-end // _GROUP_BYTES))}


def _spanned(start: int, end: int) -> range:
    """Groups with blocks from there to there."""
    return range(start // _GROUP, -(-end // _GROUP))


def _read(descriptor: int, number: int) -> bytes:
    return os.pread(descriptor, _GROUP_BYTES, number * _GROUP_BYTES).ljust(_GROUP_BYTES, b"\0")


def _broken(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is no delta", str(path))
