"""QEMU's user network, which one guest has for itself: its connections, and the host's ports that lead there."""

import fcntl
import logging
import re
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress

from ingle.api_server.adapters.qemu.qmp import Qmp
from ingle.api_server.host import sockets
from ingle.api_server.host.process import Process
from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.model.network import Protocol, PublishedPort

log = logging.getLogger(__name__)

# A line of `info usernet`: "TCP[HOST_FORWARD]  10  127.0.0.1 45133  10.0.2.15  80  0  0". The first is a descriptor.
_FORWARD = re.compile(r"(TCP|UDP)\[HOST_FORWARD\]\s+(\d+)\s")
_OPEN = re.compile(r"TCP\[(?:ESTABLISHED|CLOSE_WAIT)\]")
_WAITING = "TCP[SYN_SENT]"
"""Taken from a port of the host's, and announced to the guest, which has not answered yet."""
_BACKLOG = 128
_SIOCGSTAMP = 0x8906
_STAMP_BYTES = 16
_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


def forward(port: PublishedPort) -> str:
    """As QEMU wants it, as `hostfwd` and as an argument of `hostfwd_add`."""
    return f"{port.protocol.value}:{port.address}:{port.host_port}-:{port.vm_port}"


class UserNetwork:
    """Of one QEMU; of none where the guest is in a network that VMs share."""

    def __init__(self, process: Process, qmp: Qmp) -> None:
        self._process = process
        self._qmp = qmp
        self._listeners: list[int] = []
        self._datagrams: list[int] = []
        self._taken: list[tuple[socket.socket, bytes]] = []

    async def look(self) -> None:
        """At which ports QEMU listens. It lets one connection wait to be accepted. The next ones are dropped, and tried
        again after a second, two, four: twenty at once then take half a minute. So more may wait from now on."""
        self._listeners, self._datagrams = [], []
        for protocol, descriptor in _FORWARD.findall(await self._table()):
            if protocol == "UDP":
                self._datagrams.append(int(descriptor))
                continue
            self._listeners.append(int(descriptor))
            try:
                with self._process.take_socket(int(descriptor)) as listener:
                    listener.listen(_BACKLOG)
            except OSError as error:
                log.warning("many connections at once will be slow: %s", error, extra={"pid": self._process.pid})

    async def connections(self) -> int:
        """As of Vmm."""
        return len(_OPEN.findall(await self._table()))

    async def publish(self, port: PublishedPort) -> None:
        """As of Vmm."""
        if said := (await self._tell(f"hostfwd_add net {forward(port)}")).strip():
            sockets.check_port(port.address, port.host_port, _KINDS[port.protocol])
            raise ToolFailed(Reason.VMM_FAILED, f"QEMU does not publish {port}: {said}")
        await self.look()

    def published(self, ports: Collection[PublishedPort]) -> Mapping[PublishedPort, int]:
        """As of Vmm."""
        taken: dict[tuple[str, str, int], socket.socket] = {}
        for protocol, descriptors in ((Protocol.TCP, self._listeners), (Protocol.UDP, self._datagrams)):
            for descriptor in descriptors:
                with suppress(OSError):
                    held = self._process.take_socket(descriptor)
                    taken[protocol.value, *held.getsockname()] = held
        found = {port: taken.pop(bound).detach() for port in ports if (bound := _bound_to(port)) in taken}
        for other in taken.values():
            other.close()
        return found

    def stand_still(self) -> None:
        """The guest does from now on. That datagrams come for it is known from the kernel, which notes when QEMU was
        given the last one of a socket: QEMU itself says nothing of them."""
        self.go_on()
        for descriptor in self._datagrams:
            with suppress(OSError):
                taken = self._process.take_socket(descriptor)
                self._taken.append((taken, _last(taken)))

    def go_on(self) -> None:
        """It does not stand still any more."""
        for taken, _ in self._taken:
            taken.close()
        self._taken = []

    async def knocked(self) -> bool:
        """As of Vmm."""
        return _WAITING in await self._table() or any(_last(taken) != before for taken, before in self._taken)

    async def _table(self) -> str:
        return await self._tell("info usernet")

    async def _tell(self, line: str) -> str:
        told: str = await self._qmp.execute("human-monitor-command", **{"command-line": line})
        return told


def _bound_to(port: PublishedPort) -> tuple[str, str, int]:
    return port.protocol.value, port.address or "0.0.0.0", port.host_port  # noqa: S104 - as QEMU has it


def _last(datagrams: socket.socket) -> bytes:
    """When somebody was given one of its datagrams last. Asked for the first time, the kernel begins to note it."""
    try:
        return fcntl.ioctl(datagrams, _SIOCGSTAMP, bytes(_STAMP_BYTES))
    except OSError:  # ENOENT: nobody ever was
        return b""
