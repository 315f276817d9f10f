"""Networks that VMs share, which only root can make: the helper makes them, by slot."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.activation import Door


@dataclass(frozen=True, slots=True)
class Link:
    """What connects one VM: a tap that the server may open, and the only addresses that pass through it. It has no
    address where it leads nowhere."""

    interface: str
    mac: str
    address: str
    prefix_length: int
    gateway: str
    address6: str = ""
    """In a /64; empty: there is no IPv6, and no gateway6 either."""
    gateway6: str = ""
    """Empty: what is on the network is all that IPv6 reaches."""


class HostNetwork(Door, Protocol):
    """Taps, NAT and published ports of VMs with a slot. Raises HostProblem(DEPENDENCY_MISSING) without a helper, and
    IngleError with the helper's own reason.

    A published port of a VM that is asleep leads to nobody but this server: who connects waits until it is woken,
    and is connected through this server; of UDP a datagram wakes, and is lost."""

    async def problem(self) -> str:
        """Why VMs can't share networks here; empty when they can."""

    async def connect(self, vm: Vm) -> Link:
        """Make, or change, what connects `vm` until it is as the VM's network, NAT, limit and ports say, and whether it
        is asleep."""

    async def lead_dns(self, network: int, port: int) -> None:
        """What the VMs of a network ask their gateway is asked of the host's port."""

    async def disconnect(self, slot: int, vm_id: str) -> None:
        """Take it away, with the network when nobody else is in it. Absent is fine."""

    async def connect_nowhere(self, vm_id: str) -> Link:
        """What looks to a VMM as what connects a VM, and leads nowhere: for a guest that is nobody's VM, by an id of
        its own. Again is fine."""

    async def disconnect_nowhere(self, vm_id: str) -> None:
        """Take that away. Absent is fine, as after another server was killed: `reconcile` has done it then."""

    async def reconcile(self, vms: Collection[Vm]) -> None:
        """Exactly `vms` are connected afterwards."""
