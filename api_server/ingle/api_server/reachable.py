"""The sockets on which a server is called, and that they stay: a login manager takes a user's runtime directory away
when the last session ends, whatever still runs."""

import asyncio
import grp
import logging
import os

from ingle.api_server.config import Config, private_directory
from ingle.api_server.gate import Callers, Gate, Upstream, clear
from ingle.api_server.host import sockets
from ingle.api_server.host.descriptors import Spare
from ingle.api_server.locks import Lock
from ingle.api_server.model.errors import IngleError

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5

ADMINS = "ingle-admin"
"""The group whose members see what everybody has. They come in as members of the server's own group, like all."""


class Sockets:
    """The public socket under its lock; and, for a user's own server, one in the state directory."""

    def __init__(self, config: Config) -> None:
        """Take the lock. Raises Conflict(IN_USE), HostProblem."""
        self._paths = config.paths
        self._callers = _callers(config)
        self._names = [config.paths.socket] if config.system else [config.paths.socket, config.paths.lasting_socket]
        sockets.check_path(config.paths.socket, "set XDG_RUNTIME_DIR (or INGLE_SOCKET) to a shorter path")
        self._make_directories()
        self._lock = self._new_lock()
        self._spare = Spare()
        self._gates: list[Gate] = []
        self._watching: asyncio.Task[None] | None = None

    def open(self, upstream: Upstream) -> None:
        """Take calls, and hand them to `upstream`. Raises OSError, HostProblem."""
        for name in self._names:  # before any is listened on: what is in the way of one ends the server
            clear(name)
        for name in self._names:
            self._gates.append(Gate(name, upstream, self._callers, self._spare))
        self._watching = asyncio.create_task(self._stay(), name="reachable")

    def close(self) -> None:
        """Take no more."""
        if self._watching is not None:
            self._watching.cancel()
        for gate in self._gates:
            gate.close()

    def hang_up(self, uid: int | None = None) -> None:
        """No call is under way any more, or none of this user's."""
        for gate in self._gates:
            gate.hang_up(uid)

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


def _callers(config: Config) -> Callers:
    if not config.system:
        return Callers(os.getuid())
    try:
        admins = grp.getgrnam(ADMINS).gr_gid
    except KeyError:  # then it is root alone
        admins = None
    return Callers(os.getuid(), os.getgid(), admins)
