"""gRPC's server, and the one that takes its place when it breaks.

Its loop ends for good at the first call whose method is no UTF-8, which any caller can send: then all would be deaf.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import grpc

from ingle.api_server.rpc.interceptors import TRANSPORT, CallInterceptor
from ingle.api_server.rpc.standard import Health

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2


class CallsServer:
    """Takes calls at `upstream`, a unix socket that only our gate can open."""

    def __init__(
        self, upstream: str, register: Callable[[grpc.aio.Server], Health], hang_up: Callable[[], None]
    ) -> None:
        """`hang_up` closes all connections: those to a broken server, which would stay open for ever."""
        self._upstream = upstream
        self._register = register
        self._hang_up = hang_up
        self._interceptor = CallInterceptor()
        self.calls = self._interceptor.calls
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take calls from now on."""
        await self._begin()
        self._watching = asyncio.create_task(self._replace_broken(), name="calls")

    def refuse(self, grace_seconds: float) -> "asyncio.Task[None]":
        """Take no new ones; those under way have that time. Answers the end of that."""
        if self._watching is not None:
            self._watching.cancel()
        refusing = asyncio.create_task(self._server.stop(grace_seconds))
        self._health.stop()
        return refusing

    async def stop(self, grace_seconds: float) -> None:
        """Take its leave."""
        await self._server.stop(grace_seconds)

    async def _begin(self) -> None:
        self._server = grpc.aio.server(interceptors=(self._interceptor,), options=TRANSPORT)
        self._health = self._register(self._server)
        self._server.add_insecure_port(f"unix:{self._upstream}")
        await self._server.start()

    async def _replace_broken(self) -> None:
        """One that breaks closes its socket; to stop it would raise what broke it."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not Path(self._upstream).exists():
                log.error("gRPC's server has broken, with all calls that were under way; another one takes its place")
                self._hang_up()
                await self._begin()
