"""Datagrams that nobody reads: that one has come is all that is known of it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

_BYTES = 1
_AT_ONCE = 64


class Datagrams:
    """Says `come` whenever some have, once at a time. They are lost."""

    def __init__(self, held: socket.socket, come: Callable[[], Awaitable[object]]) -> None:
        self._held = held
        self._come = come
        self._telling: asyncio.Future[object] | None = None

    def start(self) -> None:
        """From now on."""
        self._held.setblocking(False)
        asyncio.get_running_loop().add_reader(self._held, self._hear)

    def _hear(self) -> None:
        with suppress(OSError):  # none is left
            for _ in range(_AT_ONCE):
                self._held.recv(_BYTES)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.ensure_future(self._come())

    def retire(self) -> None:
        """Leave the port."""
        if self._held.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._held)
            self._held.close()

    close = dismiss = retire
