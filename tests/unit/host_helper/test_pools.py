"""Which pools of addresses overlap what others have, and which is chosen then."""

from ipaddress import ip_network

import pytest

from ingle.host_helper.policy import IPV4_POOL, IPV6_POOL, Policy, parse, pool_of
from ingle.host_helper.pools import IPV4_POOLS, IPV6_POOLS, Claim, choose, overlapping, significant


def claim(network: str, interface: str = "tun0", source: str = "route") -> Claim:
    return Claim(ip_network(network), interface, source)


def test_a_host_without_others_gets_the_defaults_of_the_policy() -> None:
    assert (choose(IPV4_POOLS, []).pool, choose(IPV6_POOLS, []).pool) == (IPV4_POOL, IPV6_POOL)
    assert choose(IPV4_POOLS, []).why == "10.213.0.0/16: no route or address of this host overlaps it"
    assert parse({"user": 7}, "here").pools == [IPV4_POOL, IPV6_POOL]
    assert Policy("7", 7, 7, ipv6_pool=None).pools == [IPV4_POOL]


@pytest.mark.parametrize("pool", [*IPV4_POOLS, *IPV6_POOLS])
def test_every_pool_that_may_be_chosen_is_one_that_the_policy_takes(pool: object) -> None:
    assert pool_of(str(pool)) == pool


@pytest.mark.parametrize(
    ("network", "overlaps"),
    [
        ("10.0.0.0/8", True),
        ("10.213.0.0/16", True),
        ("10.213.255.255/32", True),
        ("10.212.0.0/16", False),
        ("fd00::/8", False),
    ],
)
def test_what_has_an_address_in_common_overlaps(network: str, overlaps: bool) -> None:
    claims = [claim(network)]
    assert overlapping(IPV4_POOL, claims) == (claims if overlaps else [])


def test_the_first_that_nothing_overlaps_is_chosen_and_why_names_all_that_was_in_the_way() -> None:
    claims = [claim("10.0.0.0/8"), claim("172.16.0.0/12", "", "rule 5270 to table 52"), claim("fd00::/8")]
    choice = choose(IPV4_POOLS, claims)
    assert str(choice.pool) == "192.168.208.0/20"
    assert choice.why == (
        "192.168.208.0/20: 10.213.0.0/16, 10.197.0.0/16, 10.181.0.0/16 overlap 10.0.0.0/8 (tun0, route); "
        "172.30.0.0/16, 172.27.0.0/16 overlap 172.16.0.0/12 (rule 5270 to table 52)"
    )
    assert str(choose(IPV4_POOLS, [*claims, claim("192.168.0.0/16")]).pool) == "198.19.0.0/16"
    assert choose(IPV6_POOLS, claims).pool is None
    assert choose(IPV6_POOLS, claims).why.startswith("none: fd69:6e67:6c65::/48, ")


def test_of_an_interfaces_claims_the_widest_count_and_default_routes_in_no_form() -> None:
    claims = [
        claim("0.0.0.0/0"),
        claim("0.0.0.0/1"),
        claim("128.0.0.0/1"),
        claim("::/0"),
        claim("fd00::/64"),
        claim("fd00::1/128", source="address"),
        claim("10.1.2.3/32", source="address"),
        claim("10.0.0.0/8"),
        claim("10.0.0.0/8"),
        claim("10.1.0.0/16", "eth0"),
        claim("10.1.0.0/16", "", "rule 7 to table 7"),
    ]
    assert list(map(str, significant(claims))) == [
        "10.0.0.0/8 (tun0, route)",
        "10.1.0.0/16 (rule 7 to table 7)",
        "10.1.0.0/16 (eth0, route)",
        "fd00::/64 (tun0, route)",
    ]
