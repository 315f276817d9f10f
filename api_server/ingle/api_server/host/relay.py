"""Whoever connects to a port of the host is connected to somebody else, once that one is there to be connected to."""

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

from ingle.api_server.host.descriptors import EXHAUSTED
from ingle.api_server.host.shares import Shares

log = logging.getLogger(__name__)

PLACES, PLACES_EACH = 1024, 256
"""Connections of all relays that share places, and those of one VM."""

_WAIT_SECONDS = 120.0
"""For the other end to be there: more than a wake takes that does not hang."""
_CONNECT_SECONDS = 10.0
_PIECE = 64 * 1024
_PAUSE_SECONDS = 0.5
_RESET = struct.pack("ii", 1, 0)  # struct linger, see socket(7): close() sends a reset


class Relay:
    """Takes who connects to `listening`, keeps them waiting until `ready` answers with an address and a port, and
    connects them there. Nothing of what they say is read before that. Raising, or an answer of None, resets them."""

    def __init__(
        self,
        listening: socket.socket,
        ready: Callable[[], Awaitable[tuple[str, int] | None]],
        places: Shares,
        whose: str,
    ) -> None:
        self._listening = listening
        self._ready = ready
        self._places = places
        self._whose = whose
        self._connections: set[asyncio.Task[None]] = set()
        self._connected: set[asyncio.Task[None]] = set()
        """Those that do not wait any more."""
        self._resuming: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take connections from now on."""
        self._listening.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    @property
    def idle(self) -> bool:
        """Whether nobody is connected."""
        return not self._connections

    def retire(self) -> None:
        """Leave the port, with everybody who has connected so far: they are served on."""
        if self._listening.fileno() >= 0:
            self._accept()
            self._leave()

    def dismiss(self) -> None:
        """Leave the port, and reset who is connected to the other end: who still waits for that is served on."""
        self.retire()
        for connection in self._connected:
            connection.cancel()

    def close(self) -> None:
        """Leave the port, and reset everybody."""
        self._leave()
        for connection in self._connections:
            connection.cancel()

    def _leave(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
        if self._listening.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()

    def _accept(self) -> None:
        """Everybody who waits to be."""
        while True:
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED and error.errno != errno.EPERM:
                    log.warning("nobody can be taken at a port: %s", error.strerror)
                self._accept_later()
                return
            if not self._places.take(self._whose):
                _reset(accepted)
                continue
            accepted.setblocking(False)
            connection = asyncio.create_task(self._serve(accepted), name=f"relay-{self._whose}")
            self._connections.add(connection)
            connection.add_done_callback(lambda done, accepted=accepted: self._served(done, accepted))  # type: ignore[misc]

    def _accept_later(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listening)
        self._resuming = loop.call_later(_PAUSE_SECONDS, loop.add_reader, self._listening, self._accept)

    def _served(self, connection: asyncio.Task[None], accepted: socket.socket) -> None:
        self._connections.discard(connection)
        self._connected.discard(connection)
        self._places.give(self._whose)
        _reset(accepted)  # also of one that never began; what has ended well is closed by now

    async def _serve(self, accepted: socket.socket) -> None:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                where = await self._ready()
            if where is not None:
                self._connected.add(cast("asyncio.Task[None]", asyncio.current_task()))
                await _splice(accepted, where)
        except (OSError, TimeoutError, ExceptionGroup):
            pass
        except Exception:  # whoever connects is told nothing, and the log all
            log.exception("a connection can't be relayed")


async def _splice(accepted: socket.socket, where: tuple[str, int]) -> None:
    """Both directions, each until its own end. What breaks one, breaks the other."""
    async with asyncio.timeout(_CONNECT_SECONDS):
        far_reader, far = await asyncio.open_connection(*where)
    try:
        reader, near = await asyncio.open_connection(sock=accepted.dup())
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, far))
                both.create_task(_copy(far_reader, near))
            for end in (near, far):
                end.close()
            for end in (near, far):  # it counts until its last words are taken
                await end.wait_closed()
            accepted.close()
        finally:
            near.transport.abort()
    finally:
        far.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):  # the other side has left already
        writer.write_eof()


def _reset(connection: socket.socket) -> None:
    if connection.fileno() < 0:
        return
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
