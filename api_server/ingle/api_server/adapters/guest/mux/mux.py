"""The sessions on one virtio-serial port, one after the other, and the streams of the one that lives.

A session begins with our HELLO and the guest's WELCOME: at first, when an agent knocks that knows of none, and when
what comes is no packet any more, since the agent that sent the beginning of it is gone.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from ingle.api_server.adapters.guest.mux.stream import Stream, Violation
from ingle.api_server.adapters.guest.mux.wire import (
    MARK_SIZE,
    Decoder,
    Lost,
    Packet,
    PacketType,
    Record,
    RecordKind,
    encode,
    record,
)

_PACKETS_A_TURN = 64  # taken before the event loop may turn to others
_MOST_SOUGHT = 32 << 20  # bytes of earlier sessions that may still be on their way, and then some
_MOST_STREAMS = 1000  # at once; an agent takes a few more


class Mux(asyncio.BufferedProtocol):
    """Streams over one connection to a VMM's chardev. When that ends, `over` is called."""

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over
        self._transport: asyncio.Transport
        self._decoder = Decoder()
        self._coming: Iterator[Packet | Record | Lost] | None = None
        self._host_mark = b""
        self._guest_mark: bytes | None = None  # None: not welcome yet
        self._knocked = False
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._failure: OSError | None = None
        self._changed: set[asyncio.Future[None]] = set()  # for who opens
        self._writable = True
        self._waiting: deque[Stream] = deque()

    @property
    def room(self) -> bool:
        return self._writable and not self._waiting

    async def welcomed(self) -> None:
        """Return once there is a session. Raises OSError when there will be none."""
        await self._until(lambda: self._guest_mark is not None)

    async def open(self) -> Stream:
        """A new stream, once there is a session and room for one. Raises OSError when there will be none."""
        await self._until(lambda: self._guest_mark is not None and len(self._streams) < _MOST_STREAMS)
        self._last += 1  # never the same twice, so that what is late for one is nobody's
        stream = self._streams[self._last] = Stream(self, self._last)
        return stream

    def close(self, why: OSError | None = None) -> None:
        """End all streams, and the connection."""
        self._end(why or ConnectionAbortedError("the connection was closed"))

    async def _until(self, so: Callable[[], bool]) -> None:
        while self._failure is None and not so():
            changed = asyncio.get_running_loop().create_future()
            self._changed.add(changed)
            try:
                await changed
            finally:
                self._changed.discard(changed)
        if self._failure is not None:
            raise self._failure

    # For streams.

    def put(self, kind: PacketType, stream: int, payload: bytes | memoryview = b"") -> None:
        if self._guest_mark is not None:
            self._transport.write(encode(kind, stream, payload, self._guest_mark))

    def wants(self, stream: Stream) -> None:
        if stream not in self._waiting:
            self._waiting.append(stream)

    def forget(self, stream: int) -> None:
        self._streams.pop(stream, None)
        self._tell()

    # Callbacks of asyncio's transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        self._begin()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._decoder.space()

    def buffer_updated(self, nbytes: int) -> None:
        if self._failure is None:
            self._coming = self._decoder.received(nbytes)
            self._take_some()

    def eof_received(self) -> None:
        self._end(ConnectionResetError("it hung up"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc if isinstance(exc, OSError) else ConnectionResetError("it hung up"))

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._knocked:
            self._begin()
        while self._waiting and self._writable:
            stream = self._waiting.popleft()
            if stream.send_one():
                self._waiting.append(stream)

    def _begin(self) -> None:
        """Whatever was is over; a session is to begin."""
        self._knocked = False
        self._leave("the guest's agent has begun anew")
        self._host_mark = secrets.token_bytes(MARK_SIZE)
        self._transport.write(record(RecordKind.HELLO, self._host_mark))

    def _leave(self, why: str) -> None:
        self._guest_mark = None
        streams, self._streams = self._streams, {}
        self._waiting.clear()
        for stream in streams.values():
            stream.fail(ConnectionResetError(why))

    def _take_some(self) -> None:
        """Some of what was read; the rest, before anything else is read, when the loop comes round again."""
        if self._coming is None:
            return  # closed meanwhile
        taken = 0
        try:
            for item in islice(self._coming, _PACKETS_A_TURN):
                self._take(item)
                taken += 1
            if self._decoder.sought > _MOST_SOUGHT:
                raise Violation("it answers nothing, and does not fall silent")
        except Violation as error:
            self._end(OSError(f"garbage: {error}"))
            return
        if taken == _PACKETS_A_TURN:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_some)
        else:
            self._coming = None
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _take(self, item: Packet | Record | Lost) -> None:
        match item:
            case Packet(type=kind, stream=number, payload=payload):
                if (stream := self._streams.get(number)) is not None:
                    self._take_packet(stream, kind, number, payload)
            case Record(RecordKind.WELCOME, host_mark=self._host_mark, guest_mark=guest_mark):
                self._decoder.begin(self._host_mark)
                self._guest_mark = guest_mark
                self._tell()
            case Record(RecordKind.KNOCK) if not self._writable:
                self._knocked = True  # what was not sent yet may be all that it gets
            case Record(RecordKind.KNOCK) | Lost():
                self._begin()

    def _take_packet(self, stream: Stream, kind: PacketType, number: int, payload: bytes) -> None:
        match kind:
            case PacketType.DATA:
                stream.feed(payload)
            case PacketType.CREDIT:
                stream.granted(int.from_bytes(payload, "big"))
            case PacketType.END:
                stream.end()
            case PacketType.RESET:
                self.forget(number)
                stream.fail(ConnectionResetError("it hung up"))

    def _tell(self) -> None:
        for changed in self._changed:
            if not changed.done():
                changed.set_result(None)

    def _end(self, why: OSError) -> None:
        if self._failure is not None:
            return
        self._failure = why
        self._coming = None
        self._guest_mark = None
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(why)
        self._tell()
        self._transport.abort()
        self._over()
