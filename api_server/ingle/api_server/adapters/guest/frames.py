"""Frames of the agent protocol, as the host takes them from a guest: the security boundary.

The bytes come from a machine that nobody vouches for. So this is pure and small: no I/O, no trust, no memory beyond one
frame, and a refusal as soon as a byte can't be right. proto/ingle/agent/v1/agent.proto has the format.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

MAX_PAYLOAD = 1024 * 1024
HEADER_SIZE = 5
_LENGTH_SIZE = 4
_BUFFER_SIZE = 64 * 1024


class FrameType(IntEnum):
    """What a frame's payload is."""

    HELLO = 1
    HELLO_OK = 2
    ERROR = 3
    REQUEST = 4
    RESPONSE = 5
    STARTED = 6
    EXITED = 7
    SIGNAL = 8
    WINDOW = 9
    ATTACHED = 10
    RESIZE = 11
    DETACHED = 12
    SCROLLBACK = 13
    STDIN = 16
    STDIN_EOF = 17
    STDOUT = 18
    STDERR = 19
    DATA = 20
    DATA_END = 21
    ENTRIES = 22
    CONNECTED = 24


_SMALL, _MIDDLING = 4096, 64 * 1024

PAYLOADS: Mapping[FrameType, range] = {
    FrameType.HELLO_OK: range(_SMALL + 1),
    FrameType.ERROR: range(_MIDDLING + 1),
    FrameType.RESPONSE: range(MAX_PAYLOAD + 1),
    FrameType.STARTED: range(_SMALL + 1),
    FrameType.EXITED: range(_SMALL + 1),
    FrameType.WINDOW: range(1, _SMALL + 1),
    FrameType.ATTACHED: range(_MIDDLING + 1),
    FrameType.DETACHED: range(_SMALL + 1),
    FrameType.SCROLLBACK: range(1, _MIDDLING + 1),
    FrameType.STDOUT: range(1, MAX_PAYLOAD + 1),
    FrameType.STDERR: range(1, MAX_PAYLOAD + 1),
    FrameType.DATA: range(1, MAX_PAYLOAD + 1),
    FrameType.DATA_END: range(1),
    FrameType.ENTRIES: range(MAX_PAYLOAD + 1),
    FrameType.CONNECTED: range(_SMALL + 1),
}
"""What an agent may send, and how many bytes of it. Content is never empty: nothing, sent again and again, would keep
us busy for ever."""

_FROM_AGENT = {int(kind): kind for kind in PAYLOADS}


class Frame(NamedTuple):
    """One message of an agent."""

    type: FrameType
    payload: bytes


class FrameError(ValueError):
    """What came is no frame an agent may send. The stream can't be read any further."""


def encode(kind: FrameType, payload: bytes | memoryview = b"") -> bytes:
    """A frame as bytes. Raises FrameError for more than 1 MiB."""
    if len(payload) > MAX_PAYLOAD:
        raise FrameError(f"a frame of {len(payload)} bytes; at most {MAX_PAYLOAD} are allowed")
    return b"".join((encode_header(kind, len(payload)), payload))


def encode_header(kind: FrameType, size: int) -> bytes:
    """What goes before a payload of at most 1 MiB."""
    return (size + 1).to_bytes(_LENGTH_SIZE, "big") + bytes((kind,))


def decode_header(data: bytes) -> tuple[FrameType, int]:
    """Type and payload's size from the first HEADER_SIZE bytes of a frame. Raises FrameError."""
    size = _length(data) - 1
    return _from_agent(data[_LENGTH_SIZE], size), size


def _length(data: bytes | memoryview) -> int:
    length = int.from_bytes(data[:_LENGTH_SIZE], "big")
    if not 1 <= length <= 1 + MAX_PAYLOAD:
        raise FrameError(f"a frame of length {length}; 1 to {1 + MAX_PAYLOAD} is allowed")
    return length


def _told(sizes: range) -> str:
    return f"{sizes[0]} to {sizes[-1]} are" if len(sizes) > 1 else "none is"


def _from_agent(kind: int, size: int) -> FrameType:
    if (known := _FROM_AGENT.get(kind)) is None:
        raise FrameError(f"a frame of type {kind}, which no agent sends")
    if size not in PAYLOADS[known]:
        raise FrameError(f"a frame {known.name} of {size} bytes; {_told(PAYLOADS[known])} allowed")
    return known


class Decoder:
    """Takes a stream in pieces of any size and gives the frames in it.

    Bytes are put into `space()` and announced with `received()`; the same frames come out wherever the stream is cut.
    Holds at most one frame and 64 KiB."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(_BUFFER_SIZE))
        self._start = 0
        self._end = 0

    def space(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return self._view[self._end :]

    def received(self, size: int) -> Iterator[Frame]:
        """So many bytes were put into `space()`. Gives the frames that are complete now; to be used up before the next
        call. Raises FrameError behind the frames that came before the bad one."""
        self._end += size
        while (length := self._length()) is not None:
            begin = self._start + _LENGTH_SIZE
            if self._end < begin + length:
                break
            self._start = begin + length
            yield Frame(_FROM_AGENT[self._view[begin]], bytes(self._view[begin + 1 : self._start]))
        self._make_room(_LENGTH_SIZE + (length or 1))

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and is not complete: the stream must not end here."""
        return self._end > self._start

    def _length(self) -> int | None:
        """Type and payload's bytes of the next frame; None while even that is unknown. Raises FrameError."""
        have = self._end - self._start
        if have < _LENGTH_SIZE:
            return None
        length = _length(self._view[self._start :])
        if have >= HEADER_SIZE:
            _from_agent(self._view[self._start + _LENGTH_SIZE], length - 1)
        return length

    def _make_room(self, frame_size: int) -> None:
        """Let a frame of that size fit behind what is there already."""
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + frame_size <= len(self._view) and self._end < len(self._view):
            return
        rest = self._view[self._start : self._end]
        if frame_size <= len(self._view):
            self._view[: len(rest)] = bytes(rest)
        else:
            grown = memoryview(bytearray(frame_size))
            grown[: len(rest)] = rest
            self._view = grown
        self._start, self._end = 0, len(rest)
