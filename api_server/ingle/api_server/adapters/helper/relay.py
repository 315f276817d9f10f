"""From the host's loopback to a VM: what the helper's rules can't do, a process that listens there can, for TCP."""

import asyncio
import logging
import socket
from contextlib import suppress

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 256
_CONNECT_SECONDS = 10.0
_PIECE = 64 * 1024


class Relay:
    """Whoever connects to `listening` is connected to the VM's port, until the relay is closed."""

    def __init__(self, listening: socket.socket, address: str, port: int) -> None:
        self._listening = listening
        self._to = (address, port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take connections from now on."""
        self._server = await asyncio.start_server(self._accepted, sock=self._listening)

    def close(self) -> None:
        """Nobody is connected any more."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        self._listening.close()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        connection = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        connection.add_done_callback(lambda _: writer.transport.abort())  # also of one that never began

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions, each until its own end. What breaks one, breaks the other."""
        far_writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                far_reader, far_writer = await asyncio.open_connection(*self._to)
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, far_writer))
                both.create_task(_copy(far_reader, writer))
            for end in (writer, far_writer):
                end.close()
            for end in (writer, far_writer):  # it counts until its last words are taken
                await end.wait_closed()
        except (OSError, TimeoutError, ExceptionGroup):
            pass
        finally:
            for left in filter(None, (writer, far_writer)):
                left.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):  # the other side has left already
        writer.write_eof()
