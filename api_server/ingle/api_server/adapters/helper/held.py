"""Ports of the host that lead to VMs are held by bound sockets.

The helper's rules would lead such a port away from a program that serves it later, and the program would never know. So
it is told what it would be told by any other server there: the address is in use. What the rules don't lead comes here:
from the host's loopback, and all of a VM that is asleep, which is woken for it. Over TCP it is relayed.
"""

import errno
import logging
import socket
from collections.abc import Collection
from functools import partial
from ipaddress import ip_address

from ingle.api_server.host import sockets
from ingle.api_server.host.datagrams import Datagrams
from ingle.api_server.host.relay import PLACES, PLACES_EACH, Relay
from ingle.api_server.host.shares import Shares
from ingle.api_server.model.errors import Conflict
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.activation import Waken

log = logging.getLogger(__name__)

_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


def is_relayed(port: PublishedPort) -> bool:
    """Whether it is led to the VM from the loopback alone, and not by the helper's rules."""
    return bool(port.address) and ip_address(port.address).is_loopback


class HeldPorts:
    """Those of VMs in networks that they share."""

    def __init__(self, waken: Waken) -> None:
        self._waken = waken
        self._held: dict[str, dict[PublishedPort, Datagrams | Relay]] = {}
        self._places = Shares(PLACES, PLACES_EACH)

    async def hold(self, vm: Vm, address: str) -> None:
        """The ports of the VM at `address` from now on. Raises Conflict(IN_USE) when a program has one, and then holds
        none more."""
        held = self._held.setdefault(vm.id, {})
        for port in vm.settings.ports:
            if port not in held:
                try:
                    held[port] = self._holder(vm.id, port, address)
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        raise sockets.taken(port.host_port, _KINDS[port.protocol]) from None
                    log.warning("port %s of the host can't be held: %s", port.host_port, error.strerror)

    def release(self, vm_id: str) -> None:
        """The VM's ports no more. Who waits for one that falls asleep waits on: it is about to be woken."""
        for held in self._held.pop(vm_id, {}).values():
            held.dismiss()

    def close(self) -> None:
        """None any more."""
        for held in self._held.values():
            for holder in held.values():
                holder.close()
        self._held.clear()

    async def only(self, vms: Collection[Vm]) -> None:
        """Those of `vms`, which run. A program that has one already keeps it, and is told of in the log."""
        for vm_id in self._held.keys() - {vm.id for vm in vms}:
            self.release(vm_id)
        for vm in vms:
            try:
                await self.hold(vm, vm.address)
            except Conflict as error:
                log.error("VM %s: %s", vm.id, error.message)

    def _holder(self, vm_id: str, port: PublishedPort, address: str) -> Datagrams | Relay:
        """Raises OSError."""
        tcp = port.protocol is Protocol.TCP
        held = sockets.held(port.address, port.host_port, _KINDS[port.protocol], listens=tcp)

        async def ready() -> tuple[str, int] | None:
            return None if await self._waken(vm_id) is None else (address, port.vm_port)

        holder = Relay(held, ready, self._places, vm_id) if tcp else Datagrams(held, partial(self._waken, vm_id))
        holder.start()
        return holder
