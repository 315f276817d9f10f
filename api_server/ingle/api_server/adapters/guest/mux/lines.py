"""The one connection to each VM's serial port, made when it is first needed."""

import asyncio
import socket
from pathlib import Path

from ingle.api_server.adapters.guest.mux.mux import Mux
from ingle.api_server.adapters.guest.mux.stream import Stream
from ingle.api_server.host import sockets

_PATIENCE_SECONDS = 1.0
_QUEUE = 1024 * 1024  # bytes a unix socket holds: it wakes who waits to send when a quarter of that is left


class _ComeAgain(ConnectionAbortedError):
    """Who waited for a welcome as well does as we do."""


class Lines:
    """Muxes by the path of the VMM's socket. A VMM talks to one of us at a time: whoever comes second waits."""

    def __init__(self) -> None:
        self._muxes: dict[str, Mux] = {}
        self._connecting = asyncio.Lock()

    async def stream(self, path: str) -> Stream:
        """A new stream to the agent behind the socket. Raises OSError when nobody listens there, or no more.

        QEMU holds back for ever what a guest says when it was to give that to one of us who had left while the guest
        stood still: until somebody hangs up once more. So where nobody welcomes us, it may help to come again."""
        patience = _PATIENCE_SECONDS
        while True:
            async with self._connecting:
                mux = self._muxes.get(path)
                if mux is None:
                    mux = await self._connect(path)
            try:
                async with asyncio.timeout(patience):
                    await mux.welcomed()
            except _ComeAgain:
                continue
            except TimeoutError:
                mux.close(_ComeAgain())
                patience *= 2  # it may be that it is slow
            else:
                return await mux.open()

    def close(self) -> None:
        """End all streams."""
        for mux in list(self._muxes.values()):
            mux.close()

    async def _connect(self, path: str) -> Mux:
        loop = asyncio.get_running_loop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)
            with sockets.short_path(Path(path)) as name:
                connection.connect(name)  # of a unix socket that doesn't take its time
            mux = Mux(lambda: self._forget(path))
            await loop.create_connection(lambda: mux, sock=connection)
        except BaseException:
            connection.close()
            raise
        self._muxes[path] = mux
        return mux

    def _forget(self, path: str) -> None:
        self._muxes.pop(path, None)
