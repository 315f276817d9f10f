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
_AGAIN_SECONDS = 1.0  # gRPC says a word about each failure on its own


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
        self._ending: set[asyncio.Task[None]] = set()

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
        _take_no_registered_methods(self._server)
        self._health = self._register(self._server)
        try:
            self._server.add_insecure_port(f"unix:{self._upstream}")
        except RuntimeError as error:
            where = os.path.realpath(self._upstream)
            raise HostProblem(Reason.INTERNAL, f"{where}: nothing can listen there", f"remove {where}") from error
        await self._server.start()

    async def _replace_broken(self) -> None:
        """One that breaks closes its socket."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not Path(self._upstream).exists():
                log.error("gRPC's server has broken, with all calls that were under way; another one takes its place")
                self._hang_up()
                self._end(self._server)
                await self._begin_again()

    async def _begin_again(self) -> None:
        """As soon as that is possible: descriptors may have run out."""
        told = False
        while True:
            try:
                await self._begin()
            except (HostProblem, OSError, RuntimeError) as error:
                if not told:
                    log.error("no server of gRPC's can take the place of the broken one yet: %s", error)
                told = True
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    def _end(self, broken: grpc.aio.Server) -> None:
        """Breaking was half of its end: its calls and its memory are still there."""
        ending = asyncio.create_task(broken.stop(None))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def _take_no_registered_methods(server: grpc.aio.Server) -> None:
    """Let it look up each call's method as the call comes: services offer their methods in both ways.

    For methods that it knows beforehand it waits one by one, and when it breaks it frees the memory where those calls
    would be put while they may still be put there. What has that memory by then is overwritten, whatever it is.
    """
    server.add_registered_method_handlers = (  # type: ignore[method-assign]
        lambda service_name, method_handlers: None
    )
