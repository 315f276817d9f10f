"""Everything that follows from a slot: names of interfaces, MAC and IP addresses. The only place that makes them.

slot = network * 256 + host. Host 1 is the network's gateway, 2 to 254 are VMs. What would be network 256 is none: a tap
with such a slot leads nowhere.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ingle.host_helper.policy import Policy

HOSTS = range(2, 255)

LOOSE = range(256 << 8 | HOSTS.start, 256 << 8 | HOSTS.stop)
"""Slots of taps that lead nowhere: beyond the largest pool."""

TAP_PREFIX = "ingt"
BRIDGE_PREFIX = "ingb"

OUR_GROUP = 0x696E67
"""IFLA_GROUP of every interface of ours; with the name it says that we made it ("ing")."""

DOOMED_GROUP = OUR_GROUP + 1
"""Of those to be deleted together."""

OUR_GROUPS = frozenset({OUR_GROUP, DOOMED_GROUP})

_OUR_NAME = re.compile(rf"({TAP_PREFIX}|{BRIDGE_PREFIX})(0|[1-9]\d{{0,4}})")


def tap_name(slot: int) -> str:
    """At most 9 bytes; an interface's name can have 15."""
    return f"{TAP_PREFIX}{slot}"


def bridge_name(network: int) -> str:
    """At most 7 bytes."""
    return f"{BRIDGE_PREFIX}{network}"


def is_our_name(name: str) -> bool:
    """Whether it is a name that we give."""
    return _OUR_NAME.fullmatch(name) is not None


def network_of(slot: int) -> int:
    """The network a slot is in."""
    return slot >> 8


def mac(slot: int) -> str:
    """Locally administered, 02:69:6e:67 ("ing") and the slot."""
    return "02:" + (0x69_6E67_0000 + slot).to_bytes(5, "big").hex(":")


def link_local(slot: int) -> IPv6Address:
    """What a guest's kernel makes of the MAC: modified EUI-64, RFC 4291 appendix A."""
    return IPv6Address((0xFE80 << 112) | 0x0069_6EFF_FE67_0000 | slot)


@dataclass(frozen=True, slots=True)
class Addresses:
    """The policy's pools, cut up."""

    pool4: IPv4Network
    pool6: IPv6Network | None

    @staticmethod
    def of(policy: Policy) -> "Addresses":
        """Those of `policy`."""
        return Addresses(policy.ipv4_pool, policy.ipv6_pool)

    @property
    def networks(self) -> int:
        """How many there can be, numbered from 0."""
        return self.pool4.num_addresses // 256

    def ipv4(self, slot: int) -> IPv4Address:
        """A VM's, or (host 1) a gateway's."""
        return self.pool4[slot]

    def ipv6(self, slot: int) -> IPv6Address | None:
        """A VM's, or (host 1) a gateway's; None without a pool."""
        if self.pool6 is None:
            return None
        return IPv6Address(int(self.pool6.network_address) | (network_of(slot) << 64) | (slot & 0xFF))

    def gateway(self, network: int) -> int:
        """The gateway's slot."""
        return network << 8 | 1

    def subnet4(self, network: int) -> IPv4Network:
        """A network's /24."""
        return IPv4Network((int(self.pool4.network_address) + (network << 8), 24))

    def subnet6(self, network: int) -> IPv6Network | None:
        """A network's /64; None without a pool."""
        if self.pool6 is None:
            return None
        return IPv6Network((int(self.pool6.network_address) | (network << 64), 64))
