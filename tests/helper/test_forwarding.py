"""A host that forwards nothing forwards for VMs, and goes on forwarding nothing between its other networks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helper.guests import SOON, ask, echo
from helper.namespaces import Namespace
from helper.process import Helper, eventually, vm
from ingle.helper.v1 import helper_pb2 as pb

HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
HOST2, INSIDE = "198.51.100.1", "198.51.100.2"


def wire(host: Namespace, name: str, here: str, there: str) -> Namespace:
    """Another host, behind an interface `name` of this one, which it takes for the way to everywhere."""
    other = Namespace()
    host.run(*f"ip link add {name} type veth peer name far".split())
    host.run("ip", "link", "set", "far", "netns", f"/proc/{os.getpid()}/fd/{other.descriptor}")
    for namespace, interface, address in (host, name, here), (other, "far", there):
        namespace.run(*f"ip address add {address}/24 dev {interface}".split())
        namespace.run(*f"ip link set {interface} up".split())
    other.run(*f"ip route add default via {here}".split())
    return other


@pytest.fixture
def host(own_helper: Helper) -> Namespace:
    """With forwarding off, as Debian has it."""
    own_helper.namespace.sysctl("ipv4/ip_forward", 0)
    return own_helper.namespace


@pytest.fixture
def outside(host: Namespace) -> Iterator[Namespace]:
    other = wire(host, "uplink", HOST, OUTSIDE)
    yield other
    other.close()


@pytest.fixture
def inside(host: Namespace) -> Iterator[Namespace]:
    other = wire(host, "office", HOST2, INSIDE)
    yield other
    other.close()


def forwards(host: Namespace, name: str) -> bool:
    return host.run("sysctl", "-n", f"net.ipv4.conf.{name}.forwarding").strip() == "1"


@contextmanager
def published(helper: Helper) -> Iterator[None]:
    port = pb.PublishedPort(vm_id=vm(1), slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80)
    helper.stub.PublishPort(pb.PublishPortRequest(port=port))
    yield
    helper.stub.UnpublishPort(pb.UnpublishPortRequest(port=port))


def test_vms_reach_and_are_reached_and_the_hosts_networks_stay_apart(
    own_helper: Helper, host: Namespace, outside: Namespace, inside: Namespace
) -> None:
    with own_helper.guest(2) as guest, echo(outside, 80), echo(inside, 80), echo(guest.namespace, 80):
        assert ask(guest.namespace, OUTSIDE, 80, timeout=SOON) is None
        own_helper.nat(2)
        assert ask(guest.namespace, OUTSIDE, 80) == HOST
        assert ask(guest.namespace, INSIDE, 80) == HOST2
        with published(own_helper):
            own_helper.nat(2, enabled=False)
            assert ask(outside, HOST, 8080) == OUTSIDE
            for _ in range(2):
                assert ask(outside, INSIDE, 80, timeout=SOON) is None
                assert ask(inside, OUTSIDE, 80, timeout=SOON) is None
                own_helper.kill()  # the next one knows what was whose
                own_helper.start()
            assert ask(outside, HOST, 8080) == OUTSIDE
        assert ask(outside, HOST, 8080, timeout=SOON) is None
    assert [forwards(host, name) for name in ("all", "default", "uplink", "office")] == [False] * 4
    assert ask(outside, INSIDE, 80, timeout=SOON) is None


def test_an_interface_that_comes_later_is_a_way_out_too(own_helper: Helper, host: Namespace) -> None:
    with own_helper.guest(2) as guest:
        own_helper.nat(2)
        late, later = wire(host, "late", HOST, OUTSIDE), wire(host, "later", HOST2, INSIDE)
        eventually(lambda: forwards(host, "late") and forwards(host, "later"))
        with echo(late, 80), echo(later, 80):
            assert ask(guest.namespace, OUTSIDE, 80) == HOST
            assert ask(late, INSIDE, 80, timeout=SOON) is None
        late.close()
        later.close()


def test_a_host_that_forwards_by_its_own_will_goes_on(
    own_helper: Helper, host: Namespace, outside: Namespace, inside: Namespace
) -> None:
    """Whether it did before there were VMs, or comes to do it later, as with Docker."""
    with own_helper.guest(2) as guest, echo(outside, 80), echo(inside, 80):
        own_helper.nat(2)
        assert ask(guest.namespace, OUTSIDE, 80) == HOST
        for on in (1, 0, 1):
            host.sysctl("ipv4/ip_forward", on)
            through = INSIDE if on else None
            eventually(lambda: ask(inside, OUTSIDE, 80, timeout=SOON) == through)  # noqa: B023 # waited for in here
            eventually(lambda: ask(guest.namespace, OUTSIDE, 80, timeout=SOON) == HOST)
        own_helper.nat(2, enabled=False)
        assert forwards(host, "uplink")
        assert ask(outside, INSIDE, 80) == OUTSIDE


def test_what_others_lead_through_the_host_meanwhile_is_theirs(
    own_helper: Helper, host: Namespace, outside: Namespace
) -> None:
    """One interface that somebody has forwarding on for, and a port that they publish, as container engines do."""
    with own_helper.guest(2), echo(outside, 80):
        own_helper.nat(2)
        theirs = wire(host, "theirs", HOST2, INSIDE)
        eventually(lambda: forwards(host, "theirs"))
        host.run("nft", "add table ip x; add chain ip x pre { type nat hook prerouting priority dstnat; }")
        host.run("nft", f"add rule ip x pre ip daddr {HOST} tcp dport 9000 dnat to {INSIDE}:80")
        with echo(theirs, 80):
            assert ask(outside, HOST, 9000) == OUTSIDE
        theirs.close()
