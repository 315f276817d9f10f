"""What of a host overlaps VMs' addresses, whoever came first: it is named, and others are chosen."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helper.guests import ask, echo
from helper.namespaces import Namespace
from helper.process import Helper, vm
from ingle.api_server.doctor.system import pools_check, tell_overlaps
from ingle.cli.errors import CliError
from ingle.cli.system.pools import Pools, check_unused, choose_pools
from ingle.helper.v1 import helper_pb2 as pb

VPN = (
    "ip tuntap add vpn0 mode tun",
    "ip address add 10.8.0.6 peer 10.8.0.5/32 dev vpn0",
    "ip link set vpn0 up",
    "ip route add 10.0.0.0/8 via 10.8.0.5 dev vpn0",
    "ip route add 0.0.0.0/1 dev vpn0",
    "ip route add 128.0.0.0/1 dev vpn0",
)
DOCKER = (
    "ip link add docker0 type bridge",
    "ip link set docker0 up",
    "ip address add 172.17.0.1/16 dev docker0",
    "ip link add br-0123456789ab type bridge",
    "ip address add 172.30.0.1/16 dev br-0123456789ab",
)
OVERLAY = (
    "ip link add tail0 type bridge",
    "ip link set tail0 up",
    "ip route add 10.213.0.0/18 dev tail0 table 52",
    "ip rule add pref 5270 lookup 52",
)
RFC_1918 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")


@pytest.fixture
def host() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    namespace.close()


@pytest.fixture
def shared(helper: Helper) -> Iterator[Helper]:
    """One whose host gets networks of others, which go with the test."""
    yield helper
    for name in ("vpn0", "docker0", "br-0123456789ab", "tail0"):
        helper.namespace.run("ip", "link", "delete", name, check=False)
    helper.namespace.run("ip", "rule", "delete", "pref", "5270", check=False)


def have(namespace: Namespace, commands: tuple[str, ...]) -> None:
    for command in commands:
        namespace.run(*command.split())


def found(helper: Helper) -> list[tuple[str, str, str, str]]:
    overlaps = helper.stub.FindOverlaps(pb.FindOverlapsRequest()).overlaps
    return [(each.pool, each.network, each.interface, each.source) for each in overlaps]


def chosen(host: Namespace, *asked: str) -> Pools:
    return host.do(lambda: choose_pools(Path(sys.prefix), asked))


@pytest.mark.parametrize(
    ("others", "overlaps"),
    [
        (DOCKER, []),
        (VPN, [("10.213.0.0/16", "10.0.0.0/8", "vpn0", "route")]),
        (OVERLAY, [("10.213.0.0/16", "10.213.0.0/18", "tail0", "route in table 52")]),
        (
            ("ip rule add pref 5270 to 10.213.0.0/16 lookup 53",),
            [("10.213.0.0/16", "10.213.0.0/16", "", "rule 5270 to table 53")],
        ),
        (("ip rule add pref 5270 to 10.0.0.0/8 lookup main",), []),
        (
            ("ip link add tail0 type bridge", "ip address add fd69:6e67:6c65:7::1/64 dev tail0"),
            [("fd69:6e67:6c65::/48", "fd69:6e67:6c65:7::/64", "tail0", "address")],
        ),
        (
            ("ip link add tail0 type bridge", "ip address add 10.213.9.1/24 dev tail0"),
            [("10.213.0.0/16", "10.213.9.0/24", "tail0", "address")],
        ),
    ],
    ids=[
        "docker",
        "vpn",
        "a table of its own",
        "a rule",
        "a rule for nothing new",
        "IPv6",
        "an interface that is down",
    ],
)
def test_who_has_addresses_of_ours_is_named_with_what_it_has_and_we_are_not(
    shared: Helper, others: tuple[str, ...], overlaps: list[tuple[str, str, str, str]]
) -> None:
    shared.tap(2)
    assert found(shared) == []
    have(shared.namespace, others)
    assert found(shared) == overlaps


async def test_a_vpn_that_comes_later_breaks_no_vm_and_is_told_with_what_ends_it(
    own_helper: Helper,
) -> None:
    helper = own_helper
    with helper.guest(2) as guest:
        have(helper.namespace, VPN)
        helper.kill()
        helper.start()
        with echo(guest.namespace, 80):
            assert ask(helper.namespace, guest.ipv4, 80) == "10.213.0.1"
        check = await pools_check(helper.socket)
        assert (check.status, check.remedy) == ("warn", "sudo ingle system restart --ip-pool auto")
        assert "10.0.0.0/8 (vpn0, route) overlaps VMs' 10.213.0.0/16" in check.detail
        with pytest.raises(CliError, match=vm(1)):
            check_unused(helper.socket)
    helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(1), slot=2))
    helper.stub.DeleteNetwork(pb.DeleteNetworkRequest(network=0))
    check_unused(helper.socket)
    # What the command does.
    pools = chosen(helper.namespace)
    helper.policy.write_text(pools.written_into(helper.policy.read_text()))
    helper.stop()
    helper.start()
    assert (await pools_check(helper.socket)).status == "pass"
    assert helper.tap(2).ipv4 == "172.30.0.2"
    assert helper.namespace.addresses("ingb0") == {"172.30.0.1/24", "fd69:6e67:6c65::1/64"}


async def test_a_server_that_starts_tells_who_has_addresses_of_vms_and_nothing_where_nobody_has(
    shared: Helper, caplog: pytest.LogCaptureFixture
) -> None:
    await tell_overlaps(shared.socket)
    assert caplog.messages == []
    have(shared.namespace, VPN)
    await tell_overlaps(shared.socket)
    (told,) = caplog.messages
    assert "10.0.0.0/8 (vpn0, route) overlaps VMs' 10.213.0.0/16" in told
    assert "sudo ingle system restart --ip-pool auto" in told


def test_other_calls_do_not_wait_until_the_host_was_looked_at(own_helper: Helper) -> None:
    looking = own_helper.stub.FindOverlaps.future(pb.FindOverlapsRequest())
    own_helper.tap(2)
    assert not looking.done()
    assert looking.result() == pb.FindOverlapsResponse()


@pytest.mark.parametrize(
    ("others", "ipv4", "ipv6"),
    [
        ((), "10.213.0.0/16", "fd69:6e67:6c65::/48"),
        (DOCKER, "10.213.0.0/16", "fd69:6e67:6c65::/48"),
        (OVERLAY, "10.197.0.0/16", "fd69:6e67:6c65::/48"),
        (VPN, "172.30.0.0/16", "fd69:6e67:6c65::/48"),
        ((*VPN, *DOCKER), "172.27.0.0/16", "fd69:6e67:6c65::/48"),
        ((*DOCKER, "ip -6 route add fd69:6e67::/32 dev docker0"), "10.213.0.0/16", ""),
        (
            (*DOCKER, *(f"ip route add {network} dev docker0" for network in RFC_1918)),
            "198.19.0.0/16",
            "fd69:6e67:6c65::/48",
        ),
    ],
    ids=["nobody", "docker", "a table of its own", "vpn", "both", "all of IPv6", "all of RFC 1918"],
)
def test_pools_are_chosen_that_nothing_of_the_host_overlaps(
    host: Namespace, others: tuple[str, ...], ipv4: str, ipv6: str
) -> None:
    have(host, others)
    pools = chosen(host)
    assert (pools.ipv4, pools.ipv6) == (ipv4, ipv6)
    assert pools == chosen(host), "every time the same"
    assert len(pools.why) == 2


def test_why_names_what_is_in_the_way(host: Namespace) -> None:
    have(host, VPN)
    assert chosen(host).why == (
        "172.30.0.0/16: 10.213.0.0/16, 10.197.0.0/16, 10.181.0.0/16 overlap 10.0.0.0/8 (vpn0, route)",
        "fd69:6e67:6c65::/48: no route or address of this host overlaps it",
    )


def test_a_pool_that_is_asked_for_is_taken_or_refused_with_names(host: Namespace) -> None:
    have(host, VPN)
    pools = chosen(host, "192.168.64.0/20")
    assert (pools.ipv4, pools.ipv6) == ("192.168.64.0/20", "fd69:6e67:6c65::/48")
    assert chosen(host, "fd00:1:2::/48", "auto").ipv6 == "fd00:1:2::/48"
    with pytest.raises(CliError, match=r"10\.20\.0\.0/16 overlaps 10\.0\.0\.0/8 \(vpn0, route\)"):
        chosen(host, "10.20.0.0/16")
    for pool, words in (
        ("8.8.0.0/16", "a private network of /16 to /24 is allowed"),
        ("fd00::/64", "a unique local network of /48 is allowed"),
        ("many", "'many' is no pool"),
    ):
        with pytest.raises(CliError, match=words):
            chosen(host, pool)
    with pytest.raises(CliError, match="one IPv4 pool and one IPv6 pool are allowed"):
        chosen(host, "192.168.0.0/24", "192.168.1.0/24")


def test_what_the_policy_has_is_preferred_while_nothing_overlaps_it(own_helper: Helper) -> None:
    own_helper.policy.write_text('user = "23456"\nipv4_pool = "10.77.0.0/16"\nipv6_pool = ""\n')
    command = [sys.executable, "-m", "ingle.host_helper", "--policy", str(own_helper.policy), "choose-pools"]

    def told() -> tuple[str, str]:
        answer = json.loads(own_helper.namespace.run(*command))
        return answer["ipv4_pool"], answer["ipv6_pool"]

    assert told() == ("10.77.0.0/16", "")
    have(own_helper.namespace, VPN)
    assert told() == ("172.30.0.0/16", "")


def test_looking_takes_no_right_of_roots(host: Namespace) -> None:
    have(host, OVERLAY)
    command = [*host.enter, "setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-m", "ingle.host_helper"]
    done = subprocess.run([*command, "overlaps", "10.213.0.0/16"], capture_output=True, text=True, check=False)
    assert [each["interface"] for each in json.loads(done.stdout or "[]")] == ["tail0"], done.stderr
