"""A saved guest taken apart: its memory into a file that QEMU maps, all the rest into a stream that goes with it.

QEMU itself does it when one whose memory is a file loads the guest and migrates it again, which takes a page fault for
each page and ten times as long. The format is that of a migration with version 4 of the section "ram", the same from
QEMU 2.5 to 10: see save_section_header of its migration/savevm.c, ram_save_setup and save_page_header of
migration/ram.c, and docs/devel/migration. What is not as there, is refused.
"""

import io
import mmap
import os
from struct import Struct, error

from ingle.api_server.host.threads import Stop

MAGIC = b"QEVM\0\0\0\3"
PAGE = 4096

_CONFIGURATION, _SUBSECTION, _FOOTER = 0x07, 0x05, 0x7E
_START, _PART, _END = 1, 2, 3
_ZERO, _SIZES, _CONTENT, _LAST, _SAME_BLOCK = 0x02, 0x04, 0x08, 0x10, 0x20
_FLAGS = PAGE - 1  # of a number that has an offset above them
_MOST_AT_ONCE = 512  # pages for one system call
_LOOKS = 4096  # pages between two looks at whether somebody wants it to stop

_WORD, _LONG = Struct(">I"), Struct(">Q")

_IGNORES_SHARED = b"x-ignore-shared"
_CAPABILITIES = b"configuration/capabilities"


class UnknownStream(Exception):
    """It is none, or has what this does not know."""


def split(stop: Stop, stream: int, ram: int, state: int, block: str) -> None:
    """Write the pages of the memory named `block` to where they belong in `ram`, which is all zeros and as long as the
    guest's memory, and to `state` what a QEMU with the capability x-ignore-shared takes beside it; all are
    descriptors. Raises UnknownStream, OSError, Stopped."""
    with mmap.mmap(stream, 0, access=mmap.ACCESS_READ) as data:
        try:
            rest = _Splitter(stop, data, ram, block.encode()).run()
        except (error, IndexError) as problem:
            raise UnknownStream("it ends before its end") from problem
        view = memoryview(rest)
        while view:
            view = view[os.write(state, view) :]


class _Splitter:
    def __init__(self, stop: Stop, data: mmap.mmap, ram: int, block: bytes) -> None:
        self._stop = stop
        self._data = data
        self._at = 0
        self._block, self._current = block, b""
        self._pages = _Pages(data, ram, os.fstat(ram).st_size)
        self._rest = io.BytesIO()

    def run(self) -> bytes:
        """What is not the memory's."""
        self._copy(len(MAGIC), MAGIC)
        self._configuration()
        section = self._header(_START)
        self._sizes()
        self._footer(section)
        kind = 0
        while kind != _END:
            kind = self._data[self._at]
            if kind not in (_PART, _END) or self._header(kind) != section:
                raise UnknownStream(f"section {kind} in the memory's")
            self._take_pages()
            self._footer(section)
        self._copy(len(self._data) - self._at)
        return self._rest.getvalue()

    def _configuration(self) -> None:
        """The machine's name; behind it goes what the loading QEMU must be able to do."""
        self._copy(1, bytes([_CONFIGURATION]))
        self._copy(self._word())
        name, told = bytes([len(_CAPABILITIES)]) + _CAPABILITIES, bytes([len(_IGNORES_SHARED)]) + _IGNORES_SHARED
        version, capabilities = _WORD.pack(1), _WORD.pack(1)
        self._rest.write(bytes([_SUBSECTION]) + name + version + capabilities + told)
        if self._data[self._at] != _START:
            raise UnknownStream("its configuration has a part that nobody asked for")

    def _header(self, kind: int) -> int:
        """Answers the section's number."""
        self._copy(1, bytes([kind]))
        section = self._word()
        if kind == _START:
            # Its name, the number of the instance, the version.
            told = bytes([3]) + b"ram" + _WORD.pack(0) + _WORD.pack(4)
            self._copy(len(told), told)
        return section

    def _footer(self, section: int) -> None:
        footer = bytes([_FOOTER]) + _WORD.pack(section)
        self._copy(len(footer), footer)

    def _sizes(self) -> None:
        """Names and sizes of all memories; with the capability there is an address behind each, which is 0 where it
        matters."""
        left = self._long()
        if left & _FLAGS != _SIZES:
            raise UnknownStream("it does not begin with the sizes of its memories")
        left -= _SIZES
        found = False
        while left > 0:
            name = self._name()
            self._rest.write(bytes([len(name)]) + name)
            size = self._long()
            self._rest.write(_LONG.pack(0))
            left -= size
            if name == self._block:
                found = size == self._pages.size
        if not found:
            raise UnknownStream(f"it has no memory {self._block.decode()} of {self._pages.size} bytes")
        self._copy(_LONG.size, _LONG.pack(_LAST))

    def _take_pages(self) -> None:
        """All of a section's: the hot one of the loops here, of ten bytes a page where there is nothing in it."""
        data, at, block, pages = self._data, self._at, self._current, self._pages
        unpack, mine = _LONG.unpack_from, self._block
        seen = 0
        while True:
            (header,) = unpack(data, at)
            at += _LONG.size
            flags = header & _FLAGS
            if flags == _LAST:
                break
            kind = flags & ~_SAME_BLOCK
            if kind not in (_ZERO, _CONTENT):
                raise UnknownStream(f"a page with flags {flags:#x}")
            if kind == flags:
                length = data[at]
                block = data[at + 1 : at + 1 + length]
                at += 1 + length
            size = 1 if kind == _ZERO else PAGE
            if block != mine:
                content = data[at : at + size]
                self._rest.write(_LONG.pack(header & ~_SAME_BLOCK) + bytes([len(block)]) + block + content)
            elif kind == _ZERO:
                if data[at]:
                    raise UnknownStream("a page full of something")
                pages.clear(header - flags)
            else:
                pages.put(header - flags, at)
            at += size
            seen += 1
            if seen % _LOOKS == 0:
                self._stop.check()
        pages.flush()
        if at > len(data):
            raise IndexError
        self._at, self._current = at, block
        self._rest.write(_LONG.pack(_LAST))

    def _copy(self, size: int, wanted: bytes | None = None) -> None:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise IndexError
        if wanted is not None and taken != wanted:
            raise UnknownStream(f"{taken.hex(' ')} where {wanted.hex(' ')} belongs")
        self._rest.write(taken)
        self._at += size

    def _word(self) -> int:
        (number,) = _WORD.unpack_from(self._data, self._at)
        self._copy(_WORD.size)
        return int(number)

    def _long(self) -> int:
        (number,) = _LONG.unpack_from(self._data, self._at)
        self._copy(_LONG.size)
        return int(number)

    def _name(self) -> bytes:
        length = self._data[self._at]
        name = self._data[self._at + 1 : self._at + 1 + length]
        self._at += 1 + length
        return name


class _Pages:
    """Those of one memory, written in runs."""

    def __init__(self, data: mmap.mmap, file: int, size: int) -> None:
        self.size = size
        self._data = data
        self._file = file
        self._written = bytearray(size // PAGE)
        self._from = 0
        self._run: list[bytes] = []

    def put(self, offset: int, at: int) -> None:
        """The page at `offset` is what the stream has at `at`."""
        if offset != self._from + len(self._run) * PAGE or len(self._run) == _MOST_AT_ONCE:
            self.flush()
            self._from = offset
        if offset + PAGE > self.size:
            raise UnknownStream("a page behind the memory's end")
        self._written[offset // PAGE] = 1
        self._run.append(self._data[at : at + PAGE])

    def clear(self, offset: int) -> None:
        """It is zeros: as it was, unless it has come before."""
        if offset + PAGE > self.size:
            raise UnknownStream("a page behind the memory's end")
        if self._written[offset // PAGE]:
            self.flush()
            os.pwrite(self._file, bytes(PAGE), offset)

    def flush(self) -> None:
        """Write what has come."""
        _write(self._file, b"".join(self._run), self._from)
        self._from += len(self._run) * PAGE
        self._run = []


def _write(file: int, content: bytes, offset: int) -> None:
    """All of it: the kernel may take less at once."""
    left = memoryview(content)
    while left:
        size = os.pwrite(file, left, offset)
        offset += size
        left = left[size:]
