"""One stream of a mux: an asyncio transport for who wants to be told of all that comes, or read when somebody asks."""

import asyncio
from collections import deque
from typing import Protocol

from ingle.api_server.adapters.guest.mux.wire import MAX_PAYLOAD, WINDOW, PacketType

_GRANT = WINDOW // 4  # bytes taken before the guest is told: each CREDIT costs both sides


class Carrier(Protocol):
    """What a stream's packets go through."""

    def put(self, kind: PacketType, stream: int, payload: bytes | memoryview = b"") -> None:
        """Send a packet, or nowhere when the session is over."""

    def wants(self, stream: "Stream") -> None:
        """The stream's `send_one` is to be called once there is room, in its turn."""

    @property
    def room(self) -> bool:
        """Whether a packet would leave at once."""

    def forget(self, stream: int) -> None:
        """It is over."""


class Violation(ValueError):
    """The guest broke the rules: the whole session is over."""


class Stream(asyncio.Transport):
    """As the guest sees it, a connection. Errors of it are OSErrors, told to the protocol or raised to who reads."""

    def __init__(self, carrier: Carrier, number: int) -> None:
        super().__init__()
        self._carrier = carrier
        self._number = number
        self._protocol: asyncio.BufferedProtocol | None = None
        self._paused = False
        self._delivering = False
        self._told = False  # the protocol knows that there is no more
        self._in: deque[memoryview] = deque()
        self._held = 0  # bytes of it, and of what the guest was not told that it was taken
        self._granting = 0
        self._ended = False
        self._failure: OSError | None = None
        self._closed = False
        self._kind = PacketType.OPEN
        self._credit = WINDOW
        self._out: deque[memoryview] = deque()
        self._waiting_to_write = False  # the protocol was told to
        self._changed: asyncio.Future[None] | None = None  # for who reads
        self._flushed: asyncio.Future[None] | None = None  # for who sends

    # For a protocol.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self._protocol = protocol
        protocol.connection_made(self)
        self._deliver()

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closing() or not data:
            return
        self._out.append(memoryview(data))
        self.flush()
        if self._out and self._protocol is not None and not self._waiting_to_write:
            self._waiting_to_write = True
            self._protocol.pause_writing()

    def is_closing(self) -> bool:
        return self._closed or self._failure is not None

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Leave at once: what was not sent is dropped, and the guest told."""
        if self._closed:
            return
        self._closed = True
        if self._failure is None:
            self._carrier.forget(self._number)
            if self._kind is not PacketType.OPEN:
                self._carrier.put(PacketType.RESET, self._number)
        self._drop()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        if self._in:
            self._deliver()

    # For who asks.

    async def send(self, data: bytes | memoryview) -> None:
        """Returns when all is on its way, or the stream is over."""
        self.write(data)
        while self._out and not self.is_closing():
            self._flushed = asyncio.get_running_loop().create_future()
            await self._flushed

    def send_now(self, header: bytes, payload: memoryview) -> int:
        """Send the two, as much as leaves at once, and answer how many bytes that was."""
        size = min(len(header) + len(payload), self._credit, MAX_PAYLOAD) if self._carrier.room else 0
        if self._out or size < len(header) or self.is_closing():
            return 0
        self.write(b"".join((header, payload[: size - len(header)])))
        return size

    async def some(self, size: int) -> bytes:
        """What has come, at least a byte and at most so many; empty at the end. Raises OSError."""
        await self._come()
        if not self._in:
            return b""
        first = self._in[0]
        piece = bytes(first[:size])
        self._took(len(piece))
        return piece

    async def into(self, buffer: memoryview) -> int:
        """As `some`, into a buffer."""
        await self._come()
        return self._move(buffer) if self._in else 0

    # For the mux.

    def feed(self, payload: bytes) -> None:
        """DATA has come. Raises Violation."""
        self._held += len(payload)
        if self._held > WINDOW or self._ended:
            raise Violation("more than a stream may carry")
        self._in.append(memoryview(payload))
        self._wake()

    def granted(self, size: int) -> None:
        """CREDIT has come. Raises Violation."""
        self._credit += size
        if not size or self._credit > WINDOW:
            raise Violation(f"{size} bytes of credit more, to {self._credit}")
        self.flush()

    def end(self) -> None:
        """The guest's direction is over."""
        self._ended = True
        self._wake()

    def fail(self, why: OSError) -> None:
        """The stream is over, behind what has come."""
        if self._failure is None and not self._closed:
            self._failure = why
            self._out.clear()
            self._tell_flushed()
            self._wake()

    def flush(self) -> None:
        """Send what may leave now; the rest when there is room again."""
        while self._out and self._credit:
            if not self._carrier.room:
                self._carrier.wants(self)
                return
            self.send_one()

    def send_one(self) -> bool:
        """Send a packet, if any may leave. Whether more could follow."""
        if self._out and self._credit:
            first = self._out[0]
            piece = first[: min(self._credit, MAX_PAYLOAD)]
            if len(piece) == len(first):
                self._out.popleft()
            else:
                self._out[0] = first[len(piece) :]
            self._credit -= len(piece)
            kind, self._kind = self._kind, PacketType.DATA
            self._carrier.put(kind, self._number, piece)
            if not self._out:
                self._tell_flushed()
        return bool(self._out and self._credit)

    def _tell_flushed(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)
        if self._waiting_to_write and self._protocol is not None:
            self._waiting_to_write = False
            self._protocol.resume_writing()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._deliver()

    def _drop(self) -> None:
        self._in.clear()
        self._out.clear()
        self._tell_flushed()
        self._wake()

    async def _come(self) -> None:
        while not self._in and not self._ended:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise ConnectionAbortedError("the stream was closed")
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed

    def _deliver(self) -> None:
        """Give the protocol what has come, for as long as it takes it."""
        protocol = self._protocol
        if protocol is None or self._delivering:
            return
        self._delivering = True
        try:
            while self._in and not self._paused and not self._closed:
                protocol.buffer_updated(self._move(memoryview(protocol.get_buffer(-1))))
        finally:
            self._delivering = False
        if self._in or self._told:
            return
        if self._failure is not None:
            self._told = True
            protocol.connection_lost(self._failure)
        elif self._ended and not self._closed:
            self._told = True
            protocol.eof_received()

    def _move(self, buffer: memoryview) -> int:
        piece = self._in[0][: len(buffer)]
        buffer[: len(piece)] = piece
        self._took(len(piece))
        return len(piece)

    def _took(self, size: int) -> None:
        first = self._in[0]
        if size == len(first):
            self._in.popleft()
        else:
            self._in[0] = first[size:]
        self._granting += size
        if self._granting >= _GRANT and not self._ended and not self.is_closing():
            granted, self._granting = self._granting, 0
            self._held -= granted
            self._carrier.put(PacketType.CREDIT, self._number, granted.to_bytes(4, "big"))
