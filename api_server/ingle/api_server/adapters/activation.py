"""ActivationSockets by sockets of this process."""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial

from ingle.api_server.host import sockets
from ingle.api_server.host.datagrams import Datagrams
from ingle.api_server.host.relay import PLACES, PLACES_EACH, Relay
from ingle.api_server.host.shares import Shares
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.activation import Waken, nobody

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 5.0  # whoever is about to leave a port does so at once
_LOOPBACK = "127.0.0.1"


class LocalActivationSockets:
    """Implements ports.activation.ActivationSockets."""

    def __init__(self) -> None:
        self.waken: Waken = nobody
        self._places = Shares(PLACES, PLACES_EACH)
        self._ports: dict[str, dict[PublishedPort, Relay | Datagrams]] = {}
        self._taking: dict[str, asyncio.Task[None]] = {}
        self._retired: set[Relay] = set()

    def listen(self, vm: Vm) -> None:
        if vm.id in self._ports or not vm.settings.ports:
            return
        self._ports[vm.id] = {}
        missing = self._take(vm, vm.settings.ports)
        if missing:
            self._taking[vm.id] = asyncio.create_task(self._take_later(vm, missing), name=f"activation-{vm.id}")

    def take_over(self, vm: Vm, descriptors: Mapping[PublishedPort, int]) -> None:
        self.listen(vm)
        for port, descriptor in descriptors.items():
            held = socket.socket(fileno=descriptor)
            if port in self._ports[vm.id]:
                held.close()
            else:
                self._ports[vm.id][port] = self._holder(vm, port, held)
        self._take(vm, vm.settings.ports)

    def listening(self, vm_id: str) -> Collection[PublishedPort]:
        return self._ports.get(vm_id, {}).keys()

    def retire(self, vm_id: str) -> None:
        self._stop_taking(vm_id)
        for holder in self._ports.pop(vm_id, {}).values():
            self._retire(holder)

    async def hand_over(self, vm: Vm, publish: Callable[[PublishedPort], Awaitable[None]]) -> None:
        self._stop_taking(vm.id)
        held = self._ports.pop(vm.id, {})
        try:
            for port in vm.settings.ports:
                if (holder := held.pop(port, None)) is not None:
                    self._retire(holder)
                await publish(port)
        finally:
            for holder in held.values():
                self._retire(holder)

    def close(self, vm_id: str) -> None:
        self._stop_taking(vm_id)
        for holder in self._ports.pop(vm_id, {}).values():
            holder.close()

    def close_all(self) -> None:
        """No port of any VM, and nobody connected any more."""
        for vm_id in list(self._ports):
            self.close(vm_id)
        for relay in self._retired:
            relay.close()
        self._retired.clear()

    def _retire(self, holder: "Relay | Datagrams") -> None:
        holder.retire()
        self._retired = {relay for relay in self._retired if not relay.idle}
        if isinstance(holder, Relay):
            self._retired.add(holder)

    def _stop_taking(self, vm_id: str) -> None:
        if (taking := self._taking.pop(vm_id, None)) is not None:
            taking.cancel()

    async def _take_later(self, vm: Vm, missing: Collection[PublishedPort]) -> None:
        """One after the other, as they become free."""
        pause, told = _FIRST_PAUSE_SECONDS, False
        while missing:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            missing = self._take(vm, missing)
            if missing and not told and pause == _LONGEST_PAUSE_SECONDS:
                told = True
                ports = ", ".join(map(str, missing))
                log.error("ports of a VM that hibernates are somebody else's: %s", ports, extra={"vm": vm.id})

    def _take(self, vm: Vm, wanted: Collection[PublishedPort]) -> list[PublishedPort]:
        """Those that can't be had now."""
        missing = []
        for port in wanted:
            if port in self._ports[vm.id]:
                continue
            try:
                self._ports[vm.id][port] = self._holder(vm, port, _bound(vm, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    log.debug("port %s: %s", port, error.strerror)
                missing.append(port)
        return missing

    def _holder(self, vm: Vm, port: PublishedPort, held: socket.socket) -> "Relay | Datagrams":
        holder: Relay | Datagrams
        if port.protocol is Protocol.UDP:
            holder = Datagrams(held, partial(self.waken, vm.id))
        else:
            holder = Relay(held, partial(self._ready, vm.id, port), self._places, vm.id)
        holder.start()
        return holder

    async def _ready(self, vm_id: str, port: PublishedPort) -> tuple[str, int] | None:
        """Where the guest's port is: the VMM has it here, or the guest has an address."""
        vm = await self.waken(vm_id)
        if vm is None or vm.vmm is None:
            return None
        return (vm.address, port.vm_port) if vm.address else (port.address or _LOOPBACK, port.host_port)


def _bound(vm: Vm, port: PublishedPort) -> socket.socket:
    """Raises OSError."""
    address = port.address
    if vm.slot is None:
        address = address or "0.0.0.0"  # noqa: S104 - as QEMU has it
    if port.protocol is Protocol.UDP:
        return sockets.held(address, port.host_port, socket.SOCK_DGRAM, listens=False)
    return sockets.held(address, port.host_port, socket.SOCK_STREAM, listens=True)
