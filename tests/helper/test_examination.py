"""What the helper finds when it is asked how things are: room, and firewalls of others, each of them really there."""

from collections.abc import Iterator

import pytest

from helper.process import Helper, helper_in_namespace
from ingle.helper.v1 import helper_pb2 as pb

FORWARD, INPUT = pb.OBSTACLE_KIND_FORWARD_DROPPED, pb.OBSTACLE_KIND_INPUT_DROPPED
THEIRS = "add table inet theirs; add chain inet theirs {0} {{ type filter hook {0} priority 0; policy {1}; }}; "
OPEN = (
    'add rule inet theirs forward iifname "ingb*" accept; add rule inet theirs forward oifname "ingb*" counter accept; '
)
ALL = "add chain inet theirs each; add rule inet theirs each {}; add rule inet theirs forward jump each; "


@pytest.fixture
def firewalled(helper: Helper) -> Iterator[Helper]:
    """One whose host gets somebody else's rules, which go with the test."""
    yield helper
    helper.namespace.run("nft", "flush", "ruleset")


def found(helper: Helper) -> list[tuple[int, str]]:
    obstacles = helper.stub.Examine(pb.ExamineRequest()).obstacles
    return [(each.kind, f"{each.family} {each.table} {each.chain}") for each in obstacles]


def theirs(helper: Helper, rules: str) -> None:
    helper.namespace.run("nft", rules)


def test_room_is_what_the_policy_allows_and_what_is_taken() -> None:
    with helper_in_namespace(max_taps=3, ipv4_pool="10.9.8.0/22") as helper:
        helper.tap(2)
        helper.tap(256 + 2, owner=2)
        told = helper.stub.Examine(pb.ExamineRequest())
        assert (told.networks, told.taps) == (pb.Usage(used=2, limit=4), pb.Usage(used=2, limit=3))


def test_our_own_rules_are_in_nobodys_way(helper: Helper) -> None:
    helper.tap(2)
    helper.nat(2)
    assert found(helper) == []


def test_a_forward_chain_that_drops_what_it_does_not_know_is_told_until_it_lets_our_bridges_pass(
    firewalled: Helper,
) -> None:
    theirs(firewalled, THEIRS.format("forward", "drop"))
    assert found(firewalled) == [(FORWARD, "inet theirs forward")]
    theirs(firewalled, 'add rule inet theirs forward iifname "ingb*" accept')
    assert found(firewalled) == [(FORWARD, "inet theirs forward")], "what goes to VMs is still dropped"
    theirs(firewalled, 'add rule inet theirs forward oifname "ingb*" accept')
    assert found(firewalled) == []


@pytest.mark.parametrize(
    ("rules", "blocked"),
    [
        ("add rule inet theirs forward counter log reject with icmpx admin-prohibited", True),
        ('add rule inet theirs forward iifname "wg0" drop', False),
        (OPEN + "add rule inet theirs forward drop", False),
        (OPEN.replace('"ingb*"', '{ "wg0", "ingb*" }') + "add rule inet theirs forward drop", False),
        ("add rule inet theirs forward drop; " + OPEN, True),
        (
            'add rule inet theirs forward iifname "ingb*" ip saddr 10.0.0.1 accept; add rule inet theirs forward drop',
            True,
        ),
        (ALL.format("drop") + OPEN, True),
        (ALL.format("return") + "add rule inet theirs each drop", False),
        (ALL.format("accept") + "add rule inet theirs forward drop", False),
        ("add rule inet theirs forward accept; add rule inet theirs forward drop", False),
    ],
    ids=[
        "rejected at the end",
        "another interface",
        "let pass before",
        "let pass with others",
        "let pass too late",
        "let pass in part",
        "dropped in another chain",
        "never dropped in another chain",
        "accepted in another chain",
        "accepted before",
    ],
)
def test_rules_are_read_in_the_order_in_which_a_packet_meets_them(
    firewalled: Helper, rules: str, blocked: bool
) -> None:
    theirs(firewalled, THEIRS.format("forward", "accept") + rules)
    assert found(firewalled) == ([(FORWARD, "inet theirs forward")] if blocked else [])


def test_rules_of_every_kind_are_passed_over(firewalled: Helper) -> None:
    odd = (
        "add set inet theirs friends { type ipv4_addr . inet_service; flags timeout; }",
        "add map inet theirs ports { type inet_service : verdict; }",
        "add counter inet theirs seen",
        "add rule inet theirs forward ip saddr . tcp dport @friends accept",
        "add rule inet theirs forward tcp dport vmap @ports",
        "add rule inet theirs forward ct state vmap { established : accept, invalid : drop }",
        "add rule inet theirs forward ct state { related, new } counter name seen meta mark set 1",
        'add rule inet theirs forward iifname { "ingb*", "wg0" } limit rate 5/second log prefix "odd " accept',
        "add rule inet theirs forward meta mark and 0xff == 1 ip dscp set cs1",
        "add rule inet theirs forward fib saddr . iif oif missing drop",
        "add rule inet theirs forward tcp flags syn tcp option maxseg size set rt mtu",
        "add rule inet theirs forward add @friends { ip saddr . tcp dport timeout 5s }",
        "add rule inet theirs forward meta l4proto != tcp reject",
    )
    theirs(firewalled, THEIRS.format("forward", "accept") + "; ".join(odd))
    assert found(firewalled) == []
    theirs(firewalled, "add rule inet theirs forward drop")
    assert found(firewalled) == [(FORWARD, "inet theirs forward")]


def test_an_input_chain_that_drops_what_vms_ask_the_host_is_told(firewalled: Helper) -> None:
    theirs(firewalled, THEIRS.format("input", "drop"))
    assert found(firewalled) == [(INPUT, "inet theirs input")]
    theirs(firewalled, 'add rule inet theirs input iifname "ingb*" accept')
    assert found(firewalled) == []


def test_iptables_that_drops_is_told_only_when_our_rules_are_not_there(firewalled: Helper) -> None:
    run = firewalled.namespace.run
    docker = ("-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER", "-P FORWARD DROP")
    for rule in (*docker, "-P INPUT DROP"):
        run("iptables", *rule.split())
    assert found(firewalled) == [], "the first network opens it"
    firewalled.tap(2)
    assert found(firewalled) == [], "the helper has opened it"
    run("iptables", *"-D DOCKER-USER -i ingb+ -m comment --comment ingle -j ACCEPT".split())
    assert found(firewalled) == [(FORWARD, "ip filter FORWARD")]
    run("iptables", *"-D INPUT -i ingb+ -m comment --comment ingle -j ACCEPT".split())
    assert set(found(firewalled)) == {(FORWARD, "ip filter FORWARD"), (INPUT, "ip filter INPUT")}


def test_the_older_iptables_is_told_where_it_has_a_filter_table(own_helper: Helper) -> None:
    assert found(own_helper) == []
    own_helper.namespace.run("iptables-legacy", "-P", "FORWARD", "DROP")
    assert found(own_helper) == [(pb.OBSTACLE_KIND_LEGACY_IPTABLES, "ip filter FORWARD")]
