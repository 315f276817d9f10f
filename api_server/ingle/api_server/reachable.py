"""The sockets on which a server is called, and that they stay: a login manager takes a user's runtime directory away
when the last session ends, whatever still runs."""

import asyncio
import logging
import os

from ingle.api_server.config import Config, private_directory
from ingle.api_server.gate import Callers, Gate
from ingle.api_server.host import sockets
from ingle.api_server.locks import Lock
from ingle.api_server.model.errors import IngleError

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


class Sockets:
    """The public socket under its lock; and, for a user's own server, one in the state directory."""

    def __init__(self, config: Config) -> None:
        """Take the lock. Raises Conflict(IN_USE), HostProblem."""
        self._paths = config.paths
        self._callers = Callers(os.getuid(), os.getgid() if config.system else None)
        self._names = [config.paths.socket] if config.system else [config.paths.socket, config.paths.lasting_socket]
        sockets.check_path(config.paths.socket, "set XDG_RUNTIME_DIR (or INGLE_SOCKET) to a shorter path")
        self._make_directories()
        self._lock = self._new_lock()
        self._gates: list[Gate] = []
        self._watching: asyncio.Task[None] | None = None

    def open(self, upstream: str) -> None:
        """Take calls, and hand them to `upstream`. Raises OSError."""
        for name in self._names:
            self._gates.append(Gate(name, upstream, self._callers))
        self._watching = asyncio.create_task(self._stay(), name="reachable")

    def close(self) -> None:
        """Take no more."""
        if self._watching is not None:
            self._watching.cancel()
        for gate in self._gates:
            gate.close()

    def hang_up(self) -> None:
        """No call is under way any more."""
        for gate in self._gates:
            gate.hang_up()

    def release(self) -> None:
        """Another server may listen."""
        self._lock.release()

    async def _stay(self) -> None:
        told = False
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if all(gate.reachable for gate in self._gates):
                told = False
                continue
            try:
                self._come_back()
            except (OSError, IngleError) as error:  # nobody may make the directory, say, before the next login
                if not told:
                    log.error("the socket was taken away: %s", error)
                told = True

    def _come_back(self) -> None:
        self._make_directories()
        if self._lock.lost:
            lock = self._new_lock()
            self._lock.release()
            self._lock = lock
        for gate in self._gates:
            if not gate.reachable:
                gate.listen()
        log.warning("listening again on %s, which was taken away", self._paths.socket)

    def _make_directories(self) -> None:
        private_directory(self._paths.runtime)
        private_directory(self._paths.runtime / "vms")
        self._paths.socket.parent.mkdir(parents=True, exist_ok=True)

    def _new_lock(self) -> Lock:
        socket = self._paths.socket
        return Lock(socket.with_name(socket.name + ".lock"), f"the socket {socket}", socket)
