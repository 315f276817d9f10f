"""gRPC's server, and the one that takes its place when it breaks.

Its loop ends for good at the first call whose method is no UTF-8, which any caller can send: then all would be deaf.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import grpc

from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.rpc.interceptors import TRANSPORT, CallInterceptor
from ingle.api_server.rpc.standard import Health

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_AGAIN_SECONDS = 5.0  # gRPC says a word about each failure on its own


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
        """Take its leave; once more is fine."""
        if self._watching is not None:
            self._watching.cancel()
        await self._server.stop(grace_seconds)

    async def _begin(self) -> None:
        self._server = grpc.aio.server(interceptors=(self._interceptor,), options=TRANSPORT)
        self._health = self._register(self._server)
        try:
            self._server.add_insecure_port(f"unix:{self._upstream}")
        except RuntimeError as error:
            where = os.path.realpath(self._upstream)
            raise HostProblem(Reason.INTERNAL, f"{where}: nothing can listen there", f"remove {where}") from error
        await self._server.start()

    async def _replace_broken(self) -> None:
        """One that breaks closes its socket; to stop it would raise what broke it."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if Path(self._upstream).exists():
                continue
            log.error("gRPC's server has broken, with all calls that were under way; another one takes its place")
            self._hang_up()
            try:
                await self._begin()
            except HostProblem as error:  # no descriptor is left, say: then later
                log.error("none can take its place yet: %s", error.message)
                await asyncio.sleep(_AGAIN_SECONDS)
