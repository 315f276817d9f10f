"""Who reaches whom: within a network, across networks, the host, what is beyond it, and published ports."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from helper.guests import SOON, Guest, ask, dial, echo, say
from helper.namespaces import Namespace
from helper.process import UID, Helper, vm
from ingle.helper.v1 import helper_pb2 as pb

HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
HOST6, OUTSIDE6 = "2001:db8::1", "2001:db8::2"
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.fixture
def outside(shared_helper: Helper) -> Iterator[Namespace]:
    """A host on the other side of a wire, which knows nothing of our addresses."""
    outside = Namespace()
    host = shared_helper.namespace
    host.run(*"ip link add uplink type veth peer name far".split())
    host.run("ip", "link", "set", "far", "netns", f"/proc/{os.getpid()}/fd/{outside.descriptor}")
    for namespace, interface, ipv4, ipv6 in (host, "uplink", HOST, HOST6), (outside, "far", OUTSIDE, OUTSIDE6):
        namespace.run(*f"ip address add {ipv4}/24 dev {interface}".split())
        namespace.run(*f"ip address add {ipv6}/64 dev {interface} nodad".split())
        namespace.run(*f"ip link set {interface} up".split())
    yield outside
    host.run(*"ip link delete uplink".split())
    outside.close()


def publish(
    helper: Helper,
    owner: int,
    slot: int,
    host_port: int,
    vm_port: int,
    protocol: "pb.Protocol.ValueType" = pb.PROTOCOL_TCP,
    address: str = "",
) -> pb.PublishedPort:
    port = pb.PublishedPort(
        vm_id=vm(owner), slot=slot, protocol=protocol, host_port=host_port, vm_port=vm_port, address=address
    )
    helper.stub.PublishPort(pb.PublishPortRequest(port=port))
    return port


@pytest.mark.parametrize("bridge_netfilter", [0, 1])
def test_vms_of_a_network_reach_each_other_and_no_other_network(helper: Helper, bridge_netfilter: int) -> None:
    for name in ("iptables", "ip6tables"):
        helper.namespace.sysctl(f"bridge/bridge-nf-call-{name}", bridge_netfilter)
    with helper.guest(2, 1) as one, helper.guest(3, 2) as two, helper.guest(258, 3) as apart, echo(two.namespace, 80):
        assert ask(one.namespace, two.ipv4, 80) == one.ipv4
        assert ask(one.namespace, two.ipv6, 80) == one.ipv6
        helper.nat(258, 3)  # the way out is no way in
        helper.nat(2, 1)
        assert ask(apart.namespace, two.ipv4, 80, timeout=SOON) is None
        assert ask(apart.namespace, two.ipv6, 80, timeout=SOON) is None
        assert ask(one.namespace, two.ipv4, 80) == one.ipv4


def test_a_vm_reaches_nothing_of_the_host_but_dns_at_its_gateway(helper: Helper) -> None:
    with helper.guest(2) as guest, ExitStack() as servers:
        helper.stub.EnsureNetwork(pb.EnsureNetworkRequest(network=1))
        for port in (22, 53, 10053):
            for kind in (TCP, UDP):
                servers.enter_context(echo(helper.namespace, port, kind))
        for kind in (TCP, UDP):
            for gateway, source in ("10.213.0.1", guest.ipv4), ("fd69:6e67:6c65::1", guest.ipv6):
                assert ask(guest.namespace, gateway, 53, kind) == source
                for shut in (22, 10053):
                    assert ask(guest.namespace, gateway, shut, kind, timeout=SOON) is None
            assert ask(guest.namespace, "10.213.1.1", 53, kind, timeout=SOON) is None, "another network's gateway"


def test_the_host_reaches_its_vms(helper: Helper) -> None:
    with helper.guest(2) as guest, echo(guest.namespace, 80):
        assert ask(helper.namespace, guest.ipv4, 80) == "10.213.0.1"
        assert ask(helper.namespace, guest.ipv6, 80) == "fd69:6e67:6c65::1"


def test_nat_lets_a_vm_out_until_it_is_switched_off(helper: Helper, outside: Namespace) -> None:
    with helper.guest(2) as guest, helper.guest(3, 2) as other, echo(outside, 80):
        assert ask(guest.namespace, OUTSIDE, 80, timeout=SOON) is None
        for _ in range(2):
            helper.nat(2)
        assert ask(guest.namespace, OUTSIDE, 80) == HOST
        assert ask(guest.namespace, OUTSIDE6, 80) == HOST6
        assert ask(other.namespace, OUTSIDE, 80, timeout=SOON) is None, "only who has it"
        with dial(guest.namespace, OUTSIDE, 80, timeout=SOON) as open_connection:
            assert say(open_connection) == HOST
            for _ in range(2):
                helper.nat(2, enabled=False)
            assert say(open_connection) is None
        assert ask(guest.namespace, OUTSIDE, 80, timeout=SOON) is None
        assert ask(guest.namespace, OUTSIDE6, 80, timeout=SOON) is None


def test_what_a_vm_may_not_it_is_told_at_once(helper: Helper, outside: Namespace) -> None:
    with helper.guest(2, 1) as guest, helper.guest(258, 2) as apart:
        for other in (OUTSIDE, apart.ipv4, apart.ipv6):
            with pytest.raises(OSError, match=r"No route to host|Permission denied"):
                dial(guest.namespace, other, 80, timeout=30)


def test_outside_reaches_no_vm_even_when_it_has_a_route(helper: Helper, outside: Namespace) -> None:
    outside.run("ip", "route", "add", "10.213.0.0/16", "via", HOST)
    outside.run("ip", "-6", "route", "add", "fd69:6e67:6c65::/48", "via", HOST6)
    with helper.guest(2) as guest, echo(guest.namespace, 80):
        helper.nat(2)
        publish(helper, 1, 2, 80 + 8000, 80)
        assert ask(outside, guest.ipv4, 80, timeout=SOON) is None
        assert ask(outside, guest.ipv6, 80, timeout=SOON) is None


@pytest.mark.parametrize(("kind", "protocol"), [(TCP, pb.PROTOCOL_TCP), (UDP, pb.PROTOCOL_UDP)], ids=["tcp", "udp"])
def test_a_published_port_is_the_vms_from_everywhere(
    helper: Helper, outside: Namespace, kind: socket.SocketKind, protocol: "pb.Protocol.ValueType"
) -> None:
    with (
        helper.guest(2, 1) as guest,
        helper.guest(3, 2) as neighbour,
        helper.guest(258, 3) as apart,
        echo(guest.namespace, 80, kind),
    ):
        assert ask(outside, HOST, 8080, kind, timeout=SOON) is None
        for _ in range(2):
            port = publish(helper, 1, 2, 8080, 80, protocol)
        assert ask(outside, HOST, 8080, kind) == OUTSIDE
        assert ask(outside, HOST6, 8080, kind) == OUTSIDE6
        assert ask(helper.namespace, HOST, 8080, kind) is not None, "the host itself, at an address of its own"
        assert ask(neighbour.namespace, "10.213.0.1", 8080, kind) == "10.213.0.1", (
            "through the host, so back through it"
        )
        assert ask(apart.namespace, "10.213.1.1", 8080, kind) is not None
        assert ask(neighbour.namespace, HOST, 8080, kind) is not None
        assert ask(outside, HOST, 80, kind, timeout=SOON) is None, "no other port"
        for _ in range(2):
            helper.stub.UnpublishPort(pb.UnpublishPortRequest(port=port))
        assert ask(outside, HOST, 8080, kind, timeout=SOON) is None


def test_a_port_published_at_one_address_is_the_vms_there_alone(helper: Helper, outside: Namespace) -> None:
    helper.namespace.run(*"ip address add 192.0.2.3/24 dev uplink".split())
    with helper.guest(2, 1) as guest, helper.guest(3, 2) as other, echo(guest.namespace, 80), echo(other.namespace, 80):
        for address, there, elsewhere in (HOST, HOST, "192.0.2.3"), (HOST6, HOST6, HOST):
            port = publish(helper, 1, 2, 8080, 80, address=address)
            assert ask(outside, there, 8080) is not None
            assert ask(outside, elsewhere, 8080, timeout=SOON) is None
            assert [each.address for each in helper.stub.List(pb.ListRequest()).ports] == [address]
            helper.stub.UnpublishPort(pb.UnpublishPortRequest(port=port))
            assert ask(outside, there, 8080, timeout=SOON) is None
        publish(helper, 1, 2, 8080, 80, address=HOST)
        publish(helper, 2, 3, 8080, 80, address="192.0.2.3")
        with pytest.raises(Exception, match="8080/tcp is published for another VM"):
            publish(helper, 2, 3, 8080, 80)
        assert ask(outside, "192.0.2.3", 8080) == OUTSIDE


def test_withdrawing_a_port_cuts_its_connections_and_leaves_its_twin(helper: Helper, outside: Namespace) -> None:
    with helper.guest(2) as guest, echo(guest.namespace, 80):
        first, second = publish(helper, 1, 2, 8080, 80), publish(helper, 1, 2, 8081, 80)
        helper.stub.UnpublishPort(pb.UnpublishPortRequest(port=first))
        assert ask(outside, HOST, 8080, timeout=SOON) is None
        with dial(outside, HOST, 8081, timeout=SOON) as open_connection:
            assert say(open_connection) == OUTSIDE
            helper.stub.UnpublishPort(pb.UnpublishPortRequest(port=second))
            assert say(open_connection) is None


def test_a_deleted_taps_nat_and_ports_go_with_it(helper: Helper, outside: Namespace) -> None:
    with helper.guest(2):
        helper.nat(2)
        publish(helper, 1, 2, 8080, 80)
    helper.stub.DeleteTap(pb.DeleteTapRequest(vm_id=vm(1), slot=2))
    with helper.guest(2, owner=7) as heir, echo(heir.namespace, 80), echo(outside, 80):
        assert ask(outside, HOST, 8080, timeout=SOON) is None
        assert ask(heir.namespace, OUTSIDE, 80, timeout=SOON) is None


def test_a_port_is_one_vms_and_never_one_that_the_host_serves(helper: Helper) -> None:
    helper.tap(2, 1)
    helper.tap(3, 2)
    publish(helper, 1, 2, 8080, 80)
    with pytest.raises(Exception, match="8080/tcp is published for another VM"):
        publish(helper, 2, 3, 8080, 80)
    for kind, protocol in (TCP, pb.PROTOCOL_TCP), (UDP, pb.PROTOCOL_UDP):
        with echo(helper.namespace, 9090, kind):
            for address in ("", HOST):
                with pytest.raises(Exception, match="serves port 9090"):
                    publish(helper, 1, 2, 9090, 80, protocol, address)
        with echo(helper.namespace, 9090, kind, UID):  # the server itself may hold it
            publish(helper, 1, 2, 9090, 80, protocol)
    with pytest.raises(Exception, match="port 80 of the host; the policy allows 1024 to 65535"):
        publish(helper, 1, 2, 80, 80)


def test_a_ruleset_that_somebody_flushed_comes_back_whole(helper: Helper, outside: Namespace) -> None:
    with helper.guest(2, 1) as guest, helper.guest(258, 2) as apart, echo(guest.namespace, 80):
        before = helper.namespace.rules()
        helper.namespace.run("nft", "flush", "ruleset")
        assert guest_alone(apart, guest) is False
        helper.nat(2)
        helper.nat(2, enabled=False)
        assert helper.namespace.rules() == before
        assert guest_alone(apart, guest)


def guest_alone(apart: Guest, guest: Guest) -> bool:
    return ask(apart.namespace, guest.ipv4, 80, timeout=SOON) is None


FIREWALLS = {
    "docker": ["-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER", "-P FORWARD DROP"],
    "a script's": ["-A FORWARD -i nowhere -j ACCEPT", "-A FORWARD -j DROP"],
    "ufw's": ["-N ufw-input", "-A INPUT -j ufw-input", "-P INPUT DROP", "-P FORWARD DROP"],
}


@pytest.mark.parametrize("rules", FIREWALLS.values(), ids=FIREWALLS)
def test_others_who_drop_what_they_do_not_know(helper: Helper, outside: Namespace, rules: list[str]) -> None:
    for name in ("iptables", "ip6tables"):
        helper.namespace.sysctl(f"bridge/bridge-nf-call-{name}", 1)
    programs = ("iptables", "ip6tables")
    for program in programs:
        for rule in rules:
            helper.namespace.run(program, *rule.split())
    before = [helper.namespace.run(program, "-S") for program in programs]
    try:
        with (
            helper.guest(2, 1) as one,
            helper.guest(3, 2) as two,
            helper.guest(258, 3) as apart,
            echo(two.namespace, 80),
            echo(outside, 80),
            echo(helper.namespace, 53, UDP),
            echo(helper.namespace, 10053, UDP),
            echo(helper.namespace, 22),
        ):
            helper.nat(2)
            for gateway, source in ("10.213.0.1", one.ipv4), ("fd69:6e67:6c65::1", one.ipv6):
                assert ask(one.namespace, gateway, 53, UDP) == source
                assert ask(one.namespace, gateway, 22, timeout=SOON) is None
            assert ask(helper.namespace, two.ipv4, 80) == "10.213.0.1"
            assert ask(one.namespace, two.ipv4, 80) == one.ipv4
            assert ask(one.namespace, two.ipv6, 80) == one.ipv6
            assert ask(one.namespace, OUTSIDE, 80) == HOST
            assert ask(apart.namespace, two.ipv4, 80, timeout=SOON) is None
            publish(helper, 2, 3, 8080, 80)
            assert ask(outside, HOST, 8080) == OUTSIDE
        helper.stub.Reconcile(pb.ReconcileRequest())
        assert [helper.namespace.run(program, "-S") for program in programs] == before
    finally:
        for program in programs:
            for command in ("-P FORWARD ACCEPT", "-P INPUT ACCEPT", "-F", "-X"):
                helper.namespace.run(program, *command.split())
        helper.namespace.run("nft", "flush", "ruleset")


@pytest.mark.parametrize("chain", ["FORWARD", "INPUT"])
def test_our_rules_stand_before_those_that_came_later(helper: Helper, chain: str) -> None:
    def rules() -> list[str]:
        return helper.namespace.run("iptables", "-S", chain).splitlines()

    helper.namespace.run("iptables", "-A", chain, "-j", "DROP")
    try:
        helper.tap(2)
        arranged = rules()
        helper.namespace.run("iptables", "-I", chain, "-i", "ingb+", "-j", "DROP")
        helper.stub.Reconcile(pb.ReconcileRequest(networks=[0]))
        theirs = f"-A {chain} -i ingb+ -j DROP"
        assert rules() == [*arranged[:-1], theirs, arranged[-1]]
        assert "--comment ingle" in arranged[1]
    finally:
        helper.stub.Reconcile(pb.ReconcileRequest())
        assert not any("--comment ingle" in rule for rule in rules())
        helper.namespace.run("nft", "flush", "ruleset")


def test_a_published_port_that_nobody_serves_says_so_at_once(helper: Helper, outside: Namespace) -> None:
    with helper.guest(2):
        publish(helper, 1, 2, 8080, 80, pb.PROTOCOL_UDP)
        with dial(outside, HOST, 8080, UDP, timeout=30) as connection:
            connection.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                connection.recv(1)


def test_a_vm_hears_that_its_client_has_gone(helper: Helper, outside: Namespace) -> None:
    with helper.guest(2) as guest:
        publish(helper, 1, 2, 8080, 80, pb.PROTOCOL_UDP)
        with guest.namespace.do(lambda: socket.socket(socket.AF_INET, UDP)) as server:
            server.bind(("", 80))
            server.settimeout(30)
            with dial(outside, HOST, 8080, UDP) as client:
                client.send(b"hello")
                server.connect(server.recvfrom(100)[1])
            server.send(b"still there?")
            with pytest.raises(ConnectionRefusedError):
                server.recv(1)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_another_vms_address_takes_nobody_out_even_without_the_bridges_rules(
    helper: Helper, outside: Namespace, family: socket.AddressFamily
) -> None:
    with helper.guest(2, 1) as honest, helper.guest(258, 2) as thief:
        helper.nat(2)
        helper.namespace.run("nft", "delete", "table", "bridge", "ingle")
        ipv4, target = family == socket.AF_INET, OUTSIDE if family == socket.AF_INET else OUTSIDE6
        stolen = honest.ipv4 if ipv4 else honest.ipv6
        thief.namespace.run("ip", "address", "add", stolen, "dev", "eth0", *([] if ipv4 else ["nodad"]))
        with outside.do(lambda: socket.socket(family, UDP)) as heard:
            heard.bind(("", 9))
            heard.settimeout(30)
            send_from(thief.namespace, stolen, target, b"stolen")
            send_from(honest.namespace, stolen, target, b"honest")
            assert heard.recv(100) == b"honest"


def test_another_vms_address_reaches_no_neighbour_even_without_the_bridges_rules(helper: Helper) -> None:
    helper.namespace.sysctl("bridge/bridge-nf-call-iptables", 1)
    with helper.guest(2, 1) as thief, helper.guest(3, 2) as neighbour:
        helper.namespace.run("nft", "delete", "table", "bridge", "ingle")
        thief.namespace.run("ip", "address", "add", "10.213.0.77/24", "dev", "eth0")
        with neighbour.namespace.do(lambda: socket.socket(socket.AF_INET, UDP)) as heard:
            heard.bind(("", 9))
            heard.settimeout(30)
            send_from(thief.namespace, "10.213.0.77", neighbour.ipv4, b"stolen")
            send_from(thief.namespace, thief.ipv4, neighbour.ipv4, b"honest")
            assert heard.recv(100) == b"honest"


def test_another_vms_address_reaches_no_service_of_the_host_even_without_the_bridges_rules(helper: Helper) -> None:
    with helper.guest(2, 1), helper.guest(258, 2) as thief, ExitStack() as stack:
        helper.namespace.run("nft", "delete", "table", "bridge", "ingle")
        heard = stack.enter_context(helper.namespace.do(lambda: socket.socket(socket.AF_INET6, UDP)))
        heard.bind(("", 10053))  # where DNS at a gateway is led to
        heard.settimeout(30)
        for stolen, own, gateway in (
            ("10.213.0.2", thief.ipv4, "10.213.1.1"),
            ("fd69:6e67:6c65::2", thief.ipv6, "fd69:6e67:6c65:1::1"),
        ):
            thief.namespace.run("ip", "address", "add", stolen, "dev", "eth0", *(["nodad"] if ":" in stolen else []))
            send_from(thief.namespace, stolen, gateway, b"stolen", port=53)
            send_from(thief.namespace, own, gateway, b"honest", port=53)
            assert heard.recv(100) == b"honest"


def send_from(namespace: Namespace, source: str, target: str, data: bytes, port: int = 9) -> None:
    """A datagram, to the discard port unless told otherwise."""
    with namespace.do(lambda: socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, UDP)) as sender:
        sender.bind((source, 0))
        sender.sendto(data, (target, port))
