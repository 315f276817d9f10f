"""What the server's doctor says of a real helper, and of a host on which something is really wrong: what it says to
type mends it."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from helper.process import Helper, helper_in_namespace
from ingle.api_server.doctor.system import forwarding_check, network_checks
from ingle.api_server.model.caller import ROOT, Caller
from ingle.api_server.model.check import Check
from ingle.helper.v1 import helper_pb2 as pb

ME = Caller(ROOT, admin=True)


@pytest.fixture
def host(helper: Helper) -> Iterator[Helper]:
    """Somebody else's rules go with the test."""
    yield helper
    helper.namespace.run("nft", "flush", "ruleset")


async def checks(helper: Helper) -> dict[str, Check]:
    return {check.name: check for check in await network_checks(helper.socket, helper.root / "ingle.db", ME)}


def type_in(helper: Helper, remedy: str) -> None:
    """What a person would."""
    for command in remedy.split("; "):
        helper.namespace.run(*shlex.split(command.removeprefix("sudo ")))


async def test_all_is_well(helper: Helper) -> None:
    helper.tap(2)
    found = await checks(helper)
    assert {check.status for check in found.values()} == {"pass"}
    assert str(helper.socket) in found["network helper"].detail
    assert found["taps"].detail == "1 of 1024 taken by VMs that run"
    assert found["networks"].detail == "0 of 256"
    assert [line["verb"] for line in helper.audit()] == ["Apply", "Ping", "Examine", "FindOverlaps"], (
        "nothing is changed"
    )


async def test_a_helper_that_does_not_answer_is_a_failure(own_helper: Helper) -> None:
    own_helper.kill()
    (check,) = await network_checks(own_helper.socket, own_helper.root / "ingle.db", ME)
    assert (check.name, check.status) == ("network helper", "fail")
    assert "does not answer" in check.detail
    assert "sudo systemctl restart ingle-helper;" in check.remedy
    own_helper.socket.unlink()
    (check,) = await network_checks(own_helper.socket, own_helper.root / "ingle.db", ME)
    assert f"does not listen on {own_helper.socket}" in check.detail


async def test_taps_that_run_out_are_told_before_and_after() -> None:
    with helper_in_namespace(max_taps=10) as helper:
        for slot in range(2, 11):
            helper.tap(slot, owner=slot)
        check = (await checks(helper))["taps"]
        assert (check.status, check.detail) == ("warn", "9 of 10 taken by VMs that run: nearly all are taken")
        helper.tap(11, owner=11)
        check = (await checks(helper))["taps"]
        assert (check.status, check.detail) == ("fail", "10 of 10 taken by VMs that run: none is left")
        assert "max_taps in /etc/ingle/helper.toml" in check.remedy


@pytest.mark.parametrize("hook", ["forward", "input"])
@pytest.mark.parametrize("family", ["inet", "ip6"])
async def test_a_firewall_of_nftables_is_in_the_way_until_what_is_told_is_typed(
    host: Helper, family: str, hook: str
) -> None:
    host.namespace.run("nft", f"add table {family} theirs")
    host.namespace.run(
        "nft", f"add chain {family} theirs {hook} {{ type filter hook {hook} priority 0; policy drop; }}"
    )
    check = (await checks(host))["firewall"]
    assert check.status == "warn"
    assert f"chain {family} theirs {hook} drops what VMs" in check.detail
    type_in(host, check.remedy)
    assert (await checks(host))["firewall"].status == "pass"


@pytest.mark.parametrize("chain", ["FORWARD", "INPUT"])
async def test_rules_of_ours_in_iptables_that_were_removed_or_overtaken_come_back_with_the_helper(
    own_helper: Helper, chain: str
) -> None:
    own_helper.namespace.run("iptables", "-P", chain, "DROP")
    own_helper.tap(2)
    assert (await checks(own_helper))["firewall"].status == "pass"
    for change in ("-F", chain), ("-I", chain, "-j", "DROP"):
        own_helper.namespace.run("iptables", *change)
        check = (await checks(own_helper))["firewall"]
        assert (check.status, check.remedy) == ("warn", "sudo systemctl restart ingle-helper")
        own_helper.stop()
        own_helper.start()
        assert (await checks(own_helper))["firewall"].status == "pass"


async def test_the_older_iptables_is_told_with_how_to_look_into_it(own_helper: Helper) -> None:
    own_helper.namespace.run("iptables-legacy", "-P", "FORWARD", "DROP")
    check = (await checks(own_helper))["firewall"]
    assert (check.status, "iptables-legacy has a filter table" in check.detail) == ("warn", True)
    type_in(own_helper, check.remedy)
    rules = own_helper.namespace.run("iptables-legacy", "-S", "FORWARD")
    assert all(f"-A FORWARD {way} ingb+ -j ACCEPT" in rules for way in ("-i", "-o"))


async def test_for_whom_the_host_forwards_is_told(helper: Helper) -> None:
    def look() -> Check:
        return helper.namespace.do(lambda: forwarding_check(Path("/proc/sys/net")))

    assert look() == Check("forwarding", "pass", "IPv4 and IPv6")
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        helper.namespace.sysctl(name, 0)
    try:
        told = "IPv4 for VMs alone; NAT is for IPv4 alone, as IPv6 is not forwarded"
        assert look() == Check("forwarding", "pass", told)
    finally:
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            helper.namespace.sysctl(name, 1)


async def test_a_helper_that_serves_no_disks_has_no_room_for_any(helper: Helper) -> None:
    told = helper.stub.Examine(pb.ExamineRequest())
    assert not told.HasField("devices")
