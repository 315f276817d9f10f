"""Ports of the host that lead to VMs are held by bound sockets.

The helper's rules would lead such a port away from a program that serves it later, and the program would never know. So
it is told what it would be told by any other server there: the address is in use.
"""

import errno
import logging
import socket
from collections.abc import Collection

from ingle.api_server.host import sockets
from ingle.api_server.model.errors import Conflict, Reason
from ingle.api_server.model.network import Protocol, PublishedPort
from ingle.api_server.model.vm import Vm

log = logging.getLogger(__name__)

_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


class HeldPorts:
    """Those of VMs in networks that they share."""

    def __init__(self) -> None:
        self._held: dict[str, dict[PublishedPort, socket.socket]] = {}

    def hold(self, vm: Vm) -> None:
        """The VM's ports from now on. Raises Conflict(IN_USE) when a program has one, and then holds none more."""
        held = self._held.setdefault(vm.id, {})
        for port in vm.ports:
            if port not in held:
                try:
                    held[port] = sockets.held(port.address, port.host_port, _KINDS[port.protocol])
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        raise Conflict(
                            Reason.IN_USE,
                            f"a program of the host has port {port.host_port}/{port.protocol.value}",
                            f"choose another, or see: ss -anp | grep :{port.host_port}",
                        ) from None
                    log.warning("port %s of the host can't be held: %s", port.host_port, error.strerror)

    def release(self, vm_id: str) -> None:
        """The VM's ports no more."""
        for held in self._held.pop(vm_id, {}).values():
            held.close()

    def only(self, vms: Collection[Vm]) -> None:
        """Those of `vms`. A program that has one already keeps it, and is told of in the log."""
        for vm_id in self._held.keys() - {vm.id for vm in vms}:
            self.release(vm_id)
        for vm in vms:
            try:
                self.hold(vm)
            except Conflict as error:
                log.error("VM %s: %s", vm.id, error.message)
