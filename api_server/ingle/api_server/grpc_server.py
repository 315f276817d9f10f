"""gRPC's servers, one for each user that calls, and the one that takes its place when one breaks.

Calls wait in a server's queue for their turn, and those for which there is no room are dropped without a word; its loop
ends for good at the first call whose method is no UTF-8. Any caller can do both, to nobody but itself. The event loop
gives each server its turn.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import grpc

from ingle.api_server.model.errors import Conflict, HostProblem, Reason
from ingle.api_server.rpc.interceptors import TRANSPORT, CallInterceptor
from ingle.api_server.rpc.standard import Health

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_AGAIN_SECONDS = 1.0  # gRPC says a word about each failure on its own


class GrpcServers:
    """Those of all users, each at a unix socket in `directory` that only our gate can open."""

    def __init__(
        self, directory: str, register: Callable[[grpc.aio.Server], Health], hang_up: Callable[[int], None]
    ) -> None:
        """`hang_up` closes all connections of a user."""
        self._directory = directory
        self._register = register
        self._hang_up = hang_up
        self._interceptor = CallInterceptor()
        self.calls = self._interceptor.calls
        self._servers: dict[int, asyncio.Task[GrpcServer]] = {}
        self._refusing: asyncio.Task[object] | None = None

    async def of(self, uid: int) -> str:
        """The socket for the calls of `uid`, which are taken there from now on. Raises HostProblem,
        Conflict(SERVER_STOPPING)."""
        if self._refusing is not None:
            raise Conflict(Reason.SERVER_STOPPING, "the server is stopping", "try again in a second")
        path = f"{self._directory}/{uid}.sock"
        if uid not in self._servers:
            self._servers[uid] = asyncio.create_task(self._started(uid, path))
        starting = self._servers[uid]
        try:
            await asyncio.shield(starting)
        except HostProblem:
            if self._servers.get(uid) is starting:
                del self._servers[uid]
            raise
        return path

    async def _started(self, uid: int, path: str) -> "GrpcServer":
        server = GrpcServer(path, self._register, lambda: self._hang_up(uid), self._interceptor)
        await server.start()
        return server

    def refuse(self, grace_seconds: float) -> "asyncio.Task[object]":
        """Take no new calls; those under way have that time. Answers the end of that."""
        self._refusing = asyncio.create_task(self._refuse(grace_seconds))
        return self._refusing

    async def _refuse(self, grace_seconds: float) -> None:
        await asyncio.gather(*(server.refuse(grace_seconds) for server in await self._all()))

    async def stop(self, grace_seconds: float) -> None:
        """Take their leave; once more is fine."""
        await asyncio.gather(*(server.stop(grace_seconds) for server in await self._all()))

    async def _all(self) -> "list[GrpcServer]":
        found = await asyncio.gather(*self._servers.values(), return_exceptions=True)
        return [each for each in found if isinstance(each, GrpcServer)]


class GrpcServer:
    """One of them: takes calls at `upstream`."""

    def __init__(
        self,
        upstream: str,
        register: Callable[[grpc.aio.Server], Health],
        hang_up: Callable[[], None],
        interceptor: CallInterceptor,
    ) -> None:
        """`hang_up` closes all connections: those to a broken server, which would stay open for ever."""
        self._upstream = upstream
        self._register = register
        self._hang_up = hang_up
        self._interceptor = interceptor
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
