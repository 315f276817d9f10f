"""Records and packets of the mux, as the host takes them from a guest: the security boundary.

No I/O, no trust, no memory beyond the buffer. proto/ingle/agent/v1/agent.proto has the format, and why it is found
again after anything.
"""

import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

MARK_SIZE = 8
HEADER_SIZE = 8
MAX_PAYLOAD = 65 * 1024
WINDOW = 256 * 1024
"""Bytes that may be under way in one direction of a stream before its receiver has told of more."""

_MAX_PACKET = HEADER_SIZE + MAX_PAYLOAD + MARK_SIZE
FILLER = bytes(_MAX_PACKET)
"""Goes before a record, and completes whatever packet was cut."""

_MAGIC = b"\x00ingle mux\xff\x01\r\n\x1a\xfe"
_RECORD_SIZE = len(_MAGIC) + 4 + 2 * MARK_SIZE + 4
_BUFFER_SIZE = 4 * _MAX_PACKET


class RecordKind(IntEnum):
    """What begins."""

    HELLO = 1
    WELCOME = 2
    KNOCK = 3


class PacketType(IntEnum):
    """What a packet does to its stream."""

    OPEN = 1
    DATA = 2
    END = 3
    RESET = 4
    CREDIT = 5


_SIZES = {
    PacketType.DATA: range(1, MAX_PAYLOAD + 1),
    PacketType.END: range(1),
    PacketType.RESET: range(1),
    PacketType.CREDIT: range(4, 5),
}
_FROM_AGENT = {int(kind): kind for kind in _SIZES}


class Packet(NamedTuple):
    """Of a guest's, complete."""

    type: PacketType
    stream: int
    payload: bytes


class Record(NamedTuple):
    """A guest's WELCOME or KNOCK."""

    kind: RecordKind
    host_mark: bytes
    guest_mark: bytes


class Lost(NamedTuple):
    """What came is no packet, and from now on a record is looked for."""

    why: str


def record(kind: RecordKind, host_mark: bytes, guest_mark: bytes = bytes(MARK_SIZE)) -> bytes:
    """Filler and record."""
    body = _MAGIC + int(kind).to_bytes(4, "big") + host_mark + guest_mark
    return b"".join((FILLER, body, zlib.crc32(body).to_bytes(4, "big")))


def encode(kind: PacketType, stream: int, payload: bytes | memoryview, mark: bytes) -> bytes:
    """A packet of at most MAX_PAYLOAD bytes of payload, which ends with the mark that the guest wants to see."""
    header = (kind << 56 | len(payload) << 32 | stream).to_bytes(HEADER_SIZE, "big")
    return b"".join((header, payload, mark))


class Decoder:
    """Takes what a guest sends in pieces of any size, and gives what is in it; the same wherever it is cut.

    Looks for records at first and when it is lost, and for packets behind `begin`."""

    def __init__(self) -> None:
        self._buffer = bytearray(_BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._mark: bytes | None = None
        self.sought = 0
        """Bytes that were no record, since a packet was last expected."""

    def begin(self, mark: bytes) -> None:
        """From here on come packets that end with this mark. For a WELCOME, before what follows it is taken."""
        self._mark = mark
        self.sought = 0

    def space(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if len(self._view) - self._end < _MAX_PACKET:
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._view[self._end :]

    def received(self, size: int) -> Iterator[Packet | Record | Lost]:
        """So many bytes were put into `space()`. To be used up before the next call."""
        self._end += size
        while (found := self._hunt() if self._mark is None else self._packet(self._mark)) is not None:
            yield found
        if self._start == self._end:
            self._start = self._end = 0

    def _packet(self, mark: bytes) -> Packet | Lost | None:
        begin = self._start + HEADER_SIZE
        if self._end < begin:
            return None
        header = self._buffer[self._start : begin]
        kind, size = _FROM_AGENT.get(header[0]), int.from_bytes(header[1:4], "big")
        if kind is None or size not in _SIZES[kind]:
            return self._lose(f"a packet of type {header[0]} and {size} bytes")
        end = begin + size
        if self._end < end + MARK_SIZE:
            return None
        self._start = end + MARK_SIZE
        if self._view[end : self._start] != mark:
            return self._lose("a packet that was cut")
        return Packet(kind, int.from_bytes(header[4:], "big"), bytes(self._view[begin:end]))

    def _lose(self, why: str) -> Lost:
        self._mark = None
        return Lost(why)

    def _hunt(self) -> Record | None:
        while True:
            at = self._buffer.find(_MAGIC, self._start, self._end)
            if at < 0:
                self._skip(max(self._start, self._end - len(_MAGIC) + 1))
                return None
            self._skip(at)
            end = at + _RECORD_SIZE
            if self._end < end:
                return None
            body, checksum = bytes(self._view[at : end - 4]), int.from_bytes(self._view[end - 4 : end], "big")
            kind = int.from_bytes(body[len(_MAGIC) : len(_MAGIC) + 4], "big")
            if zlib.crc32(body) == checksum and kind in (RecordKind.WELCOME, RecordKind.KNOCK):
                self._skip(end)
                return Record(RecordKind(kind), body[-2 * MARK_SIZE : -MARK_SIZE], body[-MARK_SIZE:])
            self._skip(at + len(_MAGIC))

    def _skip(self, to: int) -> None:
        self.sought += to - self._start
        self._start = to
