"""How a VM is connected: in a network of its own with its VMM, or in one that it shares with other VMs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

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

MOST_PORTS = 60
"""Of one VM: each is a socket of the host's, and all are one call of the helper's."""

DNS_PORT = 10053
"""Where a network's DNS is served, unless somebody else has that port."""


class Protocol(Enum):
    """Of a port."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True, order=True)
class PublishedPort:
    """`vm_port` of the guest, reached at `host_port` of the host's addresses, or at one of them."""

    host_port: int
    vm_port: int
    protocol: Protocol = Protocol.TCP
    address: str = ""
    """Empty: every one."""

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}{address and ':'}{self.host_port}:{self.vm_port}/{self.protocol.value}"


def published_address(text: str) -> str:
    """The address that `text` is, in the one way to write it; empty for every one. Raises InvalidArgument."""
    if not text:
        return ""
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidArgument(
            f"address {text!r}: one of this host's is allowed, as 127.0.0.1", "-p 127.0.0.1:8080:80", field="ports"
        ) from None
    if address.is_multicast or getattr(address, "scope_id", None):
        raise InvalidArgument(f"address {text}: nothing can be published there", "-p 127.0.0.1:8080:80", field="ports")
    return "" if address.is_unspecified else str(address)


def gateway_of(address: str) -> str:
    """The gateway of the /24 that a VM's `address` is in."""
    network, _, _ = address.rpartition(".")
    return f"{network}.1"


def check_network(name: str) -> None:
    """Raise InvalidArgument unless `name` can name a network."""
    if name == USER_NETWORK:
        return
    if not is_dns_label(name):
        raise InvalidArgument(
            f"network {name!r}: a network's name is a DNS label, {NAME_RULE}", "--network backend", field="network"
        )


def check_ports(ports: Sequence[PublishedPort], network: str) -> None:
    """Raise InvalidArgument unless all can be published side by side, for a VM in that network."""
    if len(ports) > MOST_PORTS:
        raise InvalidArgument(
            f"{len(ports)} published ports: a VM can have {MOST_PORTS}",
            "publish one port of a proxy in the guest, or see: ingle vm forward --help",
            field="ports",
        )
    taken: defaultdict[tuple[int, Protocol], set[str]] = defaultdict(set)
    for port in ports:
        if not (1 <= port.host_port <= 65535 and 1 <= port.vm_port <= 65535):
            raise InvalidArgument(f"published port {port}: 1 to 65535 is allowed", "-p 8080:80", field="ports")
        addresses = taken[port.host_port, port.protocol]
        if addresses and (not port.address or not addresses.isdisjoint(("", port.address))):
            raise InvalidArgument(
                f"port {port.host_port}/{port.protocol.value} of the host is published twice", field="ports"
            )
        addresses.add(port.address)
        if network == USER_NETWORK and ":" in port.address:
            raise InvalidArgument(
                f"published port {port}: a VM in a network of its own is reached at IPv4 addresses only",
                f"-p 127.0.0.1:{port.host_port}:{port.vm_port}",
                field="ports",
            )
        if (
            network not in {"", USER_NETWORK}
            and port.protocol is Protocol.UDP
            and port.address
            and ip_address(port.address).is_loopback
        ):
            raise InvalidArgument(
                f"published port {port}: in a network that VMs share it is TCP that the host's loopback can have",
                f"--network user, or -p {port.host_port}:{port.vm_port}/udp",
                field="ports",
            )


def check_nat(network: str, nat: bool | None) -> None:
    """Raise InvalidArgument when NAT is to be off where it can't be."""
    if network == USER_NETWORK and nat is False:
        raise InvalidArgument(
            "NAT can't be off for a VM in a network of its own: its VMM connects it to wherever the host is",
            "--network default",
            field="nat",
        )


def check_net_rate(network: str, bytes_per_second: int | None) -> None:
    """Raise InvalidArgument for a limit where nothing can keep it."""
    if network == USER_NETWORK and bytes_per_second:
        raise InvalidArgument(
            "net_bytes_per_second: a network of a VM's own can't be limited, since its VMM connects it; one that VMs "
            "share can",
            "--network default, which takes: sudo ingle system install; or --net-bandwidth none",
            field="net_bytes_per_second",
        )
