"""NameService: keeps the process that answers guests, and tells it what it needs to know.

What a guest sends is never read here. What that process says is: the id of a VM to be woken, and nothing else. The
sockets are ours: they stay this process's while another takes over, so that nobody else gets the port meanwhile. It is
one that needs no rights: the firewall leads port 53 of a gateway to it, and lets nobody else answer.
"""

import asyncio
import errno
import json
import logging
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ingle.api_server.adapters.dns.answers import Host
from ingle.api_server.adapters.dns.upstream import servers_of
from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.network import DNS_PORT
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.activation import Waken, nobody

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

_RESOLV_CONF = Path("/etc/resolv.conf")
_RESPONDER = "ingle.api_server.adapters.dns.responder"
_ANY_PORT, _TRIES = 0, 20  # what is free for datagrams may not be for connections
_IP_FREEBIND = 15  # ip(7); the bridge that has the address may come later, or go and come again
_LOOK_SECONDS = 2.0  # at resolv.conf, because networks change
_HEARS_SECONDS = 10.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 30.0
_LONG_LIFE_SECONDS = 60.0
_LONGEST_ID = 64
_IDS_A_TURN = 16
_ENVIRONMENT = ("LANG", "LC_ALL", "PATH", "PYTHONPATH", "TZ")


class DnsServer:
    """Answers for `domain` from `start` until `close`."""

    def __init__(self, domain: str, port: int = DNS_PORT, configuration: Path = _RESOLV_CONF) -> None:
        self._domain = domain
        self._port = port
        self._configuration = configuration
        self._hosts: dict[str, Host] = {}
        self._sockets: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._orders: asyncio.Queue[tuple[bytes, Sequence[socket.socket]]] = asyncio.Queue()
        self._keeper: asyncio.Task[None] | None = None
        self._waking: dict[str, asyncio.Future[Vm | None]] = {}
        self.waken: Waken = nobody

    def start(self) -> None:
        """There is somebody who answers, from now on."""
        self._keeper = asyncio.create_task(self._keep())

    def tell(self, vm_id: str, host: Host | None) -> None:
        """The VM is such a host, or none."""
        if host is None:
            self._hosts.pop(vm_id, None)
        else:
            self._hosts[vm_id] = host
        self._orders.put_nowait((_about(vm_id, host), ()))

    async def serve(self, gateway: str) -> int:
        if gateway not in self._sockets:
            sockets = self._bound(gateway)
            self._sockets[gateway] = sockets
            self._orders.put_nowait((_LISTEN, sockets))
        port: int = self._sockets[gateway][0].getsockname()[1]
        return port

    def _bound(self, address: str) -> tuple[socket.socket, socket.socket]:
        """At our port, or where another program has it, and nobody knows us by it, at one that is free."""
        for port in (self._port, *([_ANY_PORT] * _TRIES if address != LOOPBACK else ())):
            try:
                return bound(address, port)
            except OSError as error:
                problem = error
                if error.errno != errno.EADDRINUSE:
                    break
        who = "another program has it" if problem.errno == errno.EADDRINUSE else problem.strerror
        raise HostProblem(
            Reason.PORT_REFUSED, f"DNS at {address} port {self._port}: {who}", f"ss -lnp | grep :{self._port}"
        ) from problem

    async def close(self) -> None:
        """Answer nobody any more."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for waking in self._waking.values():
            waking.cancel()
        await asyncio.gather(*self._waking.values(), return_exceptions=True)
        for sockets in self._sockets.values():
            for each in sockets:
                each.close()
        self._sockets.clear()

    async def _keep(self) -> None:
        """One process after the other, each later than the one before when they don't last."""
        pause = _FIRST_PAUSE_SECONDS
        clock = asyncio.get_running_loop().time
        while True:
            since = clock()
            try:
                log.error("the process that answers DNS ended with %s", await self._run_one())
            except OSError as error:
                log.error("the process that answers DNS can't be started: %s", error)
            if clock() - since > _LONG_LIFE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _run_one(self) -> int:
        """From start to end; what it ended with. Raises OSError."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with ours:
            with its:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", _RESPONDER, str(its.fileno()), self._domain),
                    cwd="/",
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    pass_fds=(its.fileno(),),
                )
            loop = asyncio.get_running_loop()
            loop.add_reader(ours, self._hear, ours)
            telling = [asyncio.create_task(work) for work in (self._tell_all(ours, process), self._look(process))]
            try:
                return await process.wait()
            finally:
                loop.remove_reader(ours)
                for task in telling:
                    task.cancel()
                await asyncio.gather(*telling, return_exceptions=True)
                with suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())

    def _hear(self, from_process: socket.socket) -> None:
        """Whoever has taken that process over may say anything, and can wake VMs that sleep: each once at a time."""
        for _ in range(_IDS_A_TURN):
            try:
                said = from_process.recv(_LONGEST_ID)
            except OSError:
                return
            if not said:
                asyncio.get_running_loop().remove_reader(from_process)
                return
            vm_id = said.decode("ascii", "replace")
            host = self._hosts.get(vm_id)
            if host is None or not host.sleeper or vm_id in self._waking:
                continue
            waking = asyncio.ensure_future(self.waken(vm_id))
            self._waking[vm_id] = waking
            waking.add_done_callback(lambda done, vm_id=vm_id: self._woken(vm_id, done))  # type: ignore[misc]

    def _woken(self, vm_id: str, done: "asyncio.Future[Vm | None]") -> None:
        del self._waking[vm_id]
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("a VM could not be woken for who asked for it: %s", error, extra={"vm": vm_id})

    async def _look(self, process: Process) -> None:
        """Have it ask the host's servers, whichever they are by now."""
        before = None
        while process.returncode is None:
            servers = servers_of(self._configuration)
            if servers != before:
                before = servers
                self._orders.put_nowait((json.dumps({"servers": servers}).encode(), ()))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _tell_all(self, to_process: socket.socket, process: Process) -> None:
        """All that there is to know, and then whatever is new. One that doesn't listen is ended."""
        self._orders = asyncio.Queue()
        for vm_id, host in self._hosts.items():
            self._orders.put_nowait((_about(vm_id, host), ()))
        for sockets in self._sockets.values():
            self._orders.put_nowait((_LISTEN, sockets))
        try:
            while True:
                message, passed = await self._orders.get()
                async with asyncio.timeout(_HEARS_SECONDS):
                    await _send(to_process, message, [each.fileno() for each in passed])
        except (OSError, TimeoutError):
            if process.returncode is None:
                process.kill()


_LISTEN = b"{}"  # at the sockets that come with it


def _about(vm_id: str, host: Host | None) -> bytes:
    return json.dumps({"vm": vm_id, "host": host and asdict(host)}).encode()


async def _send(to_process: socket.socket, message: bytes, descriptors: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            socket.send_fds(to_process, [message], descriptors)
        except BlockingIOError:
            writable = asyncio.Event()
            loop.add_writer(to_process, writable.set)
            try:
                await writable.wait()
            finally:
                loop.remove_writer(to_process)
        else:
            return


def bound(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """For datagrams and for connections. Raises OSError."""
    datagrams = _bound_one(address, port, socket.SOCK_DGRAM)
    try:
        streams = _bound_one(address, datagrams.getsockname()[1], socket.SOCK_STREAM)
        streams.listen()
    except OSError:
        datagrams.close()
        raise
    return datagrams, streams


def _bound_one(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
