"""How a VM is connected: in a network of its own with its VMM, or in one that it shares with other VMs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.ids import NAME_RULE, is_dns_label

USER_NETWORK = "user"
"""The name of no network: the VMM alone connects the guest, with the rights of whoever runs it."""

DEFAULT_NETWORK = "default"
"""The one that VMs share unless they are told otherwise, where they can share one."""

SLOTS_PER_NETWORK = 256
"""A slot is a network's number times this, plus the host part of an address in it."""

FIRST_HOST, LAST_HOST = 2, 254
"""Host parts that VMs get: 1 is the gateway."""

VMS_PER_NETWORK = LAST_HOST - FIRST_HOST + 1

MOST_NETWORKS = 256

DNS_PORT = 10053
"""Where a network's DNS is served, unless somebody else has that port."""


class Protocol(Enum):
    """What can be published."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True, order=True)
class PublishedPort:
    """`vm_port` of the guest, reached at `host_port` of the host's addresses."""

    host_port: int
    vm_port: int
    protocol: Protocol = Protocol.TCP

    def __str__(self) -> str:
        return f"{self.host_port}:{self.vm_port}/{self.protocol.value}"


def gateway_of(address: str) -> str:
    """The gateway of the /24 that a VM's `address` is in."""
    network, _, _ = address.rpartition(".")
    return f"{network}.1"


def check_network(name: str) -> None:
    """Raise InvalidArgument unless `name` can name a network."""
    if name == USER_NETWORK:
        return
    if not is_dns_label(name):
        raise InvalidArgument(f"network {name!r}: a network's name is a DNS label, {NAME_RULE}", "--network backend")


def check_ports(ports: Sequence[PublishedPort]) -> None:
    """Raise InvalidArgument unless all can be published side by side."""
    taken: set[tuple[int, Protocol]] = set()
    for port in ports:
        if not (1 <= port.host_port <= 65535 and 1 <= port.vm_port <= 65535):
            raise InvalidArgument(f"published port {port}: 1 to 65535 is allowed", "-p 8080:80")
        if (port.host_port, port.protocol) in taken:
            raise InvalidArgument(f"port {port.host_port}/{port.protocol.value} of the host is published twice")
        taken.add((port.host_port, port.protocol))


def check_nat(network: str, nat: bool | None) -> None:
    """Raise InvalidArgument when NAT is to be off where it can't be."""
    if network == USER_NETWORK and nat is False:
        raise InvalidArgument(
            "NAT can't be off for a VM in a network of its own: its VMM connects it to wherever the host is",
            "--network default",
        )
