"""Which addresses VMs get: pools that nothing else of this host has a use for.

A VPN, Docker, libvirt or a LAN may have any private network, now or later. What they have is a `Claim` each; where one
of them and a pool of ours overlap, packets for one of the two go to the other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from ingle.host_helper.policy import IPV4_POOL, IPV6_POOL

IPV4_POOLS = (
    IPV4_POOL,
    *map(IPv4Network, ("10.197.0.0/16", "10.181.0.0/16", "172.30.0.0/16", "172.27.0.0/16", "192.168.208.0/20")),
    IPv4Network("198.19.0.0/16"),  # RFC 2544, for benchmarks: for those whose VPN has all that RFC 1918 has
)
"""In the order of preference. Not where others begin to look: Docker at 172.17 and 192.168.0, podman at 10.88,
Kubernetes at 10.96 and 10.244, routers of homes at 192.168.0 and 192.168.1."""

IPV6_POOLS = (IPV6_POOL, *map(IPv6Network, ("fd69:6e67:6c66::/48", "fd69:6e67:6c67::/48")))
"""In the order of preference. Somebody else's use of one is a strange accident, or all of fd00::/8."""


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A network that somebody on this host has, whoever it is."""

    network: IPv4Network | IPv6Network
    interface: str
    """Empty for a rule, and for a route that leads nowhere."""
    source: str
    """As `ip` has it: "route in table 52", "address", "rule 5270 to table 52"."""

    def __str__(self) -> str:
        return f"{self.network} ({', '.join(filter(None, (self.interface, self.source)))})"


def overlapping(pool: IPv4Network | IPv6Network, claims: Iterable[Claim]) -> list[Claim]:
    """Those of `claims` that have an address in common with `pool`, in their order."""
    return [claim for claim in claims if _overlap(pool, claim.network)]


def _overlap(pool: IPv4Network | IPv6Network, network: IPv4Network | IPv6Network) -> bool:
    if isinstance(pool, IPv4Network):
        return isinstance(network, IPv4Network) and pool.overlaps(network)
    return isinstance(network, IPv6Network) and pool.overlaps(network)


def significant(claims: Iterable[Claim]) -> list[Claim]:
    """Sorted, and of an interface's claims those alone that are in no other of it: a route and not each of the
    addresses in it. Default routes, or halves of one, claim nothing: what is more specific goes before them."""
    kept: list[Claim] = []
    for claim in sorted(claims, key=lambda each: (each.network.version, each.network.prefixlen, each)):
        within = any(
            each.interface == claim.interface and claim.interface and _contains(each.network, claim.network)
            for each in kept
        )
        if claim.network.prefixlen > 1 and not within and claim not in kept:
            kept.append(claim)
    return sorted(kept, key=lambda each: (each.network.version, each))


def _contains(outer: IPv4Network | IPv6Network, inner: IPv4Network | IPv6Network) -> bool:
    return _overlap(outer, inner) and outer.prefixlen <= inner.prefixlen


@dataclass(frozen=True, slots=True)
class Choice:
    """The pool that was chosen, if there is one, and what kept from taking each that was preferred to it."""

    pool: IPv4Network | IPv6Network | None
    passed: tuple[tuple[IPv4Network | IPv6Network, Claim], ...]

    @property
    def why(self) -> str:
        """One sentence."""
        if not self.passed:
            return f"{self.pool}: no route or address of this host overlaps it"
        by_claim: dict[Claim, list[str]] = {}
        for pool, claim in self.passed:
            by_claim.setdefault(claim, []).append(str(pool))
        passed = (f"{', '.join(pools)} overlap{'' if pools[1:] else 's'} {claim}" for claim, pools in by_claim.items())
        return f"{self.pool or 'none'}: {'; '.join(passed)}"


def choose(candidates: Sequence[IPv4Network] | Sequence[IPv6Network], claims: Sequence[Claim]) -> Choice:
    """The first of `candidates` that overlaps none of `claims`."""
    passed: list[tuple[IPv4Network | IPv6Network, Claim]] = []
    for pool in candidates:
        found = overlapping(pool, claims)
        if not found:
            return Choice(pool, tuple(passed))
        passed.append((pool, found[0]))
    return Choice(None, tuple(passed))
