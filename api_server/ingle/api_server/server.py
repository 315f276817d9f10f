"""One server from lock to last goodbye."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from ingle.api_server import doctor
from ingle.api_server.application import Application, application
from ingle.api_server.config import Config, Paths, private_directory
from ingle.api_server.grpc_server import GrpcServers
from ingle.api_server.host import sockets
from ingle.api_server.host.leftovers import kill_leftovers
from ingle.api_server.host.reserve import Reserve
from ingle.api_server.host.service_manager import feed_watchdog, tell_manager
from ingle.api_server.locks import Lock
from ingle.api_server.plugged import MakeEngines
from ingle.api_server.reachable import Sockets
from ingle.api_server.rpc.calls import Calls
from ingle.version import VERSION

log = logging.getLogger(__name__)

_YOUNG_OBJECTS = 10_000  # instead of 700: most calls are over by then
_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0  # for the last words of calls; who then still holds a connection has it closed
_LAST_SECONDS = 45.0  # more than a VMM that is hard to kill takes


async def serve(config: Config, make_engines: MakeEngines) -> None:
    """Serve until a SIGTERM, SIGINT or Shutdown call. Running VMs live on.

    Raises Conflict(IN_USE) when another server has the state or the socket, HostProblem when it can't start."""
    paths = config.paths
    _make_directories(paths)
    state_lock = Lock(paths.state / "lock", f"the state directory {paths.state}", paths.socket)
    public = Sockets(config)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await kill_leftovers(paths.state)
    try:
        async with application(config, stopping.set, make_engines) as app, AsyncExitStack() as exits:
            exits.push_async_callback(app.activation.close)
            await _take_up(app)
            if (strays := doctor.stray_check(config)).status != "pass":
                log.error("%s; to end them: %s", strays.detail, strays.remedy)
            private = exits.enter_context(sockets.short_directory(paths.private))
            server = GrpcServers(private, app.register, public.hang_up)
            exits.push_async_callback(server.stop, 0)
            await server.of(os.getuid())
            exits.callback(public.close)
            public.open(server.of)
            _meanwhile(exits, "watchdog", feed_watchdog())
            _meanwhile(exits, "auto-start", app.auto_start.run())
            _meanwhile(exits, "idle", app.idle.keep())
            _meanwhile(exits, "state", _stay(state_lock, paths, stopping))
            if config.helper is not None:
                _meanwhile(exits, "overlaps", doctor.tell_overlaps(config.helper))
            _spare_the_garbage_collector()
            tell_manager("READY=1")
            log.info("serving", extra={"version": VERSION, "socket": str(paths.socket), "pid": os.getpid()})
            await stopping.wait()
            log.info("stopping")
            tell_manager("STOPPING=1")
            public.close()
            refusing = server.refuse(_GRACE_SECONDS + _LAST_SECONDS)
            server.calls.end_endless()
            await app.operations.close()
            await _end(server.calls)
            await asyncio.wait({refusing}, timeout=_GOODBYE_SECONDS)
            public.hang_up()
            await server.stop(_GOODBYE_SECONDS)
            await refusing
    finally:
        public.release()
        state_lock.release()


def _meanwhile(exits: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
    exits.callback(asyncio.create_task(work, name=name).cancel)


async def _take_up(app: Application) -> None:
    """What an earlier server has left."""
    await app.recovery.run()
    await app.warm_starts.take_up()
    await app.activation.take_up()
    await app.keepers.take_up()


async def _stay(lock: Lock, paths: Paths, stopping: asyncio.Event) -> None:
    """Until the state is taken away: without it nothing can be done, nor be asked of us, and another server may have
    what is in its place."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if lock.replaced:
            log.error("%s was taken away, and this server ends; VMs that run live on", paths.state)
            stopping.set()
            return


async def _end(calls: Calls) -> None:
    """Let calls come to their ends, then end them."""
    if not await calls.ended(_GRACE_SECONDS):
        calls.end_all()
        if not await calls.ended(_LAST_SECONDS):
            log.error("calls are left behind in the middle of what they do")


def _make_directories(paths: Paths) -> None:
    os.umask(0o077)  # sockets, logs and databases are private from birth
    private_directory(paths.state, "XDG_STATE_HOME")
    Reserve(paths.state).tend()  # on a full disk all that follows has this
    private_directory(paths.cache, "XDG_CACHE_HOME")
    for directory in (paths.private, paths.vms, paths.snapshots, paths.images, paths.kernels):
        private_directory(directory, "XDG_STATE_HOME")


def _spare_the_garbage_collector() -> None:
    """What is there by now stays until the end. Going through all of it again and again costs a call that makes many
    objects, as a list of hundreds does, half as much time again at the 99th percentile."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    gc.enable()
