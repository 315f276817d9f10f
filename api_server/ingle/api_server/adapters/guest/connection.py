"""One connection to an agent: bytes to frames, and flow control both ways.

Not reading frames stops the transport from reading, which stops the guest from writing. Writing input waits for the
transport and, on top, for the agent's window, so that a signal never queues behind input that nobody reads.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Self

from google.protobuf.message import DecodeError

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import hybrid
from ingle.api_server.adapters.guest.address import check_holder, describe, unreachable
from ingle.api_server.adapters.guest.frames import Decoder, Frame, FrameError, FrameType, encode
from ingle.api_server.adapters.guest.mux import Lines
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentAddress, HybridVsockAddress, SerialAddress, UnixAddress, VsockAddress

_STDIN_WINDOW = 256 * 1024  # as the protocol has it
_STDIN_CHUNK = 64 * 1024  # a pipe's size: larger pieces reach the command no faster
_READ_AHEAD = 512 * 1024  # bytes of frames nobody asked for yet, before reading stops
_FRAME_COST = 64  # what a frame is counted as beyond its payload, so that empty ones are bounded too
_FRAMES_A_TURN = 256  # taken before the event loop may turn to others: a read can hold thousands of tiny ones


class Connection(asyncio.BufferedProtocol):
    """Frames to and from one agent. Made by `connect`; used by one reader and any number of writers."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._frames: deque[Frame] = deque()
        self._coming: Iterator[Frame] | None = None  # in what was read, and not taken yet
        self._queued_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._failure: GuestError | None = None
        self._closed = False
        self._window = _STDIN_WINDOW
        self._writable = asyncio.Event()  # the transport takes more
        self._writable.set()
        self._window_open = asyncio.Event()  # the agent takes more
        self._window_open.set()

    @classmethod
    async def connect(cls, address: AgentAddress, greeting: bytes, lines: Lines) -> Self:
        """Connect and send the first bytes. Raises GuestError(GUEST_UNREACHABLE)."""
        loop = asyncio.get_running_loop()
        connection = cls(describe(address))
        try:
            match address:
                case HybridVsockAddress():
                    await _take(connection, await hybrid.connect(address))
                case SerialAddress(path):
                    (await lines.stream(path)).set_protocol(connection)
                case UnixAddress(path):
                    await loop.create_unix_connection(lambda: connection, path)
                case VsockAddress(cid=cid, port=port):
                    await _take(connection, await _vsock(cid, port))
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise connection._unreachable(why) from error
        try:
            check_holder(address)
        except GuestError:
            connection.close()
            raise
        connection.send(greeting)
        return connection

    def send(self, data: bytes) -> None:
        """Write encoded frames, or nowhere when the connection is gone: the reader is who learns that."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def send_stdin(self, data: bytes) -> None:
        """Write STDIN frames; returns when all is handed to the transport, or the connection is gone."""
        rest = memoryview(data)
        while rest and not self._closed:
            await self._window_open.wait()
            await self._writable.wait()
            piece = rest[: min(self._window, _STDIN_CHUNK)]
            rest = rest[len(piece) :]
            self._window -= len(piece)
            if self._window == 0 and not self._closed:
                self._window_open.clear()
            if piece:
                self.send(encode(FrameType.STDIN, piece))
        await self._writable.wait()

    async def receive(self) -> Frame:
        """The next frame. Raises GuestError: GUEST_UNREACHABLE at the end of the stream, GUEST_PROTOCOL for garbage."""
        if self._frames:
            await asyncio.sleep(0)  # a guest that always has something to say must not keep the loop from the others
        while not self._frames:
            if self._failure is not None:
                raise self._failure
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        frame = self._frames.popleft()
        self._queued_bytes -= len(frame.payload) + _FRAME_COST
        self._resume()
        return frame

    def close(self) -> None:
        """Leave at once: what was not sent is dropped, and a command that still runs is killed by the agent."""
        self._end(self._unreachable("the connection was closed"))
        self._frames.clear()  # now, not when the garbage collector finds thousands of them
        self._coming = None

    # Callbacks of asyncio's transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._decoder.space()

    def buffer_updated(self, nbytes: int) -> None:
        if not self._closed:
            self._coming = self._decoder.received(nbytes)
            self._take_some()

    def eof_received(self) -> None:
        self._end(self._unreachable("it hung up in the middle of a frame" if self._decoder.partial else "it hung up"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(self._unreachable(str(exc) if exc else "it hung up"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _take_some(self) -> None:
        """Frames of what was read; the rest of them, before anything else is read, when the loop comes round again."""
        if self._coming is None:
            return  # closed meanwhile
        taken = 0
        try:
            for frame in islice(self._coming, _FRAMES_A_TURN):
                self._take(frame)
                taken += 1
        except (FrameError, DecodeError) as error:
            self._end(GuestError(Reason.GUEST_PROTOCOL, f"the guest's agent at {self._peer} sent garbage: {error}"))
        if taken == _FRAMES_A_TURN:
            if self._transport is not None:
                self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_some)
        else:
            self._coming = None
            self._resume()
        self._wake_reader()

    def _take(self, frame: Frame) -> None:
        if frame.type is FrameType.WINDOW:
            granted = agent_pb2.ExecWindow.FromString(frame.payload).bytes
            self._window += granted
            if not granted or self._window > _STDIN_WINDOW:
                raise FrameError(f"{granted} bytes more of a window of {_STDIN_WINDOW}, to {self._window}")
            if self._window > 0:
                self._window_open.set()
            return
        self._frames.append(frame)
        self._queued_bytes += len(frame.payload) + _FRAME_COST
        if self._queued_bytes > _READ_AHEAD and self._transport is not None:
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._coming is not None or self._queued_bytes > _READ_AHEAD // 2:
            return
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _end(self, failure: GuestError) -> None:
        """The first failure stays; whoever waits is told. Frames that came before it can still be read."""
        if self._closed:
            return
        self._closed = True
        self._failure = failure
        self._window_open.set()
        self._writable.set()
        self._wake_reader()
        if self._transport is not None:
            self._transport.abort()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _unreachable(self, why: str) -> GuestError:
        return unreachable(self._peer, why)


async def _vsock(cid: int, port: int) -> socket.socket:
    vsock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        vsock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(vsock, (cid, port))
    except BaseException:
        vsock.close()
        raise
    return vsock


async def _take(connection: Connection, stream: socket.socket) -> None:
    """What comes on the stream is the connection's."""
    try:
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=stream)
    except BaseException:
        stream.close()
        raise
