"""The commands `ingle-helper overlaps` and `choose-pools`: they look at the host once, and answer in JSON.

They take no right of root's, so they give all up before they look."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper import capabilities
from ingle.host_helper.errors import KernelRefused
from ingle.host_helper.policy import BadPool, Policy, pool_of
from ingle.host_helper.pools import IPV4_POOLS, IPV6_POOLS, Claim, choose, overlapping

_TIMEOUT_SECONDS = 20.0


def find_overlaps(policy: Policy) -> list[pb.Overlap]:
    """What of the host overlaps `policy`'s pools, found by a process of its own. Raises KernelRefused."""
    command = [sys.executable, "-I", "-m", "ingle.host_helper", "overlaps", *map(str, policy.pools)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise KernelRefused(f"the host's routes could not be read in {_TIMEOUT_SECONDS:.0f} s") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise KernelRefused(f"the host's routes could not be read: {said[-1]}")
    return [pb.Overlap(**each) for each in json.loads(done.stdout)]


def overlaps(pools: Iterable[IPv4Network | IPv6Network]) -> list[dict[str, str]]:
    """Fields of helper.proto's Overlap, by name."""
    found = _claims()
    return [
        {"pool": str(pool), "network": str(claim.network), "interface": claim.interface, "source": claim.source}
        for pool in pools
        for claim in overlapping(pool, found)
    ]


def choose_pools(asked: Sequence[str], present: Policy | None) -> dict[str, Any]:
    """Keys ipv4_pool, ipv6_pool ("" for none) and why, a list of sentences: those that were `asked` for, else those of
    the `present` policy, else of those that ingle knows the first that nothing overlaps.

    Raises BadPool, with names, for what overlaps something of the host, and for what is no pool."""
    pools = [pool_of(text) for text in asked]
    found = _claims()
    for pool in pools:
        for claim in overlapping(pool, found):
            raise BadPool(f"{pool} overlaps {claim}")
    ipv4 = [pool for pool in pools if isinstance(pool, IPv4Network)]
    ipv6 = [pool for pool in pools if isinstance(pool, IPv6Network)]
    if max(len(ipv4), len(ipv6)) > 1:
        raise BadPool("one IPv4 pool and one IPv6 pool are allowed")
    had4 = [present.ipv4_pool] if present else []
    had6 = [present.ipv6_pool] if present and present.ipv6_pool else []
    choice4 = choose(ipv4 or [*dict.fromkeys([*had4, *IPV4_POOLS])], found)
    why = [choice4.why]
    if choice4.pool is None:
        why.append(f"{had4[0] if had4 else IPV4_POOLS[0]} is taken all the same; --ip-pool takes another")
    without_ipv6 = present is not None and present.ipv6_pool is None and not ipv6
    choice6 = None if without_ipv6 else choose(ipv6 or [*dict.fromkeys([*had6, *IPV6_POOLS])], found)
    if choice6 is not None:
        why.append(f"{choice6.why}" if choice6.pool else f"no IPv6 for VMs: {choice6.why.removeprefix('none: ')}")
    return {
        "ipv4_pool": str(choice4.pool or [*had4, *IPV4_POOLS][0]),
        "ipv6_pool": str(choice6.pool or "") if choice6 is not None else "",
        "why": why,
    }


def _claims() -> list[Claim]:
    capabilities.keep(frozenset())
    # Here: it takes a second, and the process that serves does without.
    from ingle.host_helper.host_networks import claims  # noqa: PLC0415

    return claims()
