"""A guest sends nothing but from its own MAC and addresses, and claims no others."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from helper.guests import Guest
from helper.namespaces import Namespace
from helper.process import Helper

MINE = bytes.fromhex("02696e670002")
OTHERS = bytes.fromhex("02696e670003")
GATEWAY = bytes.fromhex("02696e670001")
ALL = b"\xff" * 6

IP, OTHER_IP, GATEWAY_IP = (IPv4Address(f"10.213.0.{host}").packed for host in (2, 3, 1))
IP6, OTHER_IP6, GATEWAY_IP6 = (IPv6Address(f"fd69:6e67:6c65::{host}").packed for host in (2, 3, 1))
LOCAL6, OTHER_LOCAL6 = (IPv6Address(f"fe80::69:6eff:fe67:{host}").packed for host in (2, 3))
NODES6 = IPv6Address("ff02::1").packed

MARK = b"a frame of the test's own"
ARP_REQUEST, ARP_REPLY = 1, 2
SOLICITATION, ADVERTISEMENT, ROUTER_ADVERTISEMENT, REDIRECT = 135, 136, 134, 137


def ethernet(kind: int, payload: bytes, source: bytes = MINE) -> bytes:
    return ALL + source + struct.pack("!H", kind) + payload


def ipv4(source: bytes, fragment: int = 0) -> bytes:
    length = 20 + 8 + len(MARK)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 1, fragment, 64, 17, 0, source, b"\xff" * 4)
    total = sum(struct.unpack("!10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return header[:10] + struct.pack("!H", checksum) + header[12:] + struct.pack("!HHHH", 9, 9, 8 + len(MARK), 0) + MARK


def arp(operation: int, mac: bytes, ip: bytes, target: bytes) -> bytes:
    return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, mac, ip, bytes(6), target) + MARK


def ipv6(source: bytes, payload: bytes, following: int = 17) -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), following, 255, source, NODES6) + payload


def udp6(source: bytes) -> bytes:
    return ipv6(source, struct.pack("!HHHH", 9, 9, 8 + len(MARK), 1) + MARK)


def neighbour(source: bytes, kind: int, target: bytes, *, hidden: bool = False) -> bytes:
    message = struct.pack("!BBHI", kind, 0, 0, 0) + target + MARK
    if hidden:  # behind a header of hop-by-hop options that says nothing
        return ipv6(source, struct.pack("!BB6B", 58, 0, 1, 4, 0, 0, 0, 0) + message, following=0)
    return ipv6(source, message, following=58)


HONEST = {
    "ipv4": ethernet(0x0800, ipv4(IP)),
    "arp request": ethernet(0x0806, arp(ARP_REQUEST, MINE, IP, OTHER_IP)),
    "arp reply": ethernet(0x0806, arp(ARP_REPLY, MINE, IP, OTHER_IP)),
    "arp probe for its own address": ethernet(0x0806, arp(ARP_REQUEST, MINE, bytes(4), IP)),
    "ipv6": ethernet(0x86DD, udp6(IP6)),
    "ipv6, link-local": ethernet(0x86DD, udp6(LOCAL6)),
    "solicitation": ethernet(0x86DD, neighbour(IP6, SOLICITATION, OTHER_IP6)),
    "advertisement of its own address": ethernet(0x86DD, neighbour(LOCAL6, ADVERTISEMENT, IP6)),
    "detection of its own address's duplicates": ethernet(0x86DD, neighbour(bytes(16), SOLICITATION, IP6)),
}

SPOOFED = {
    "another's mac": ethernet(0x0800, ipv4(IP), OTHERS),
    "the gateway's mac": ethernet(0x0800, ipv4(IP), GATEWAY),
    "another's ipv4": ethernet(0x0800, ipv4(OTHER_IP)),
    "another's mac and ipv4": ethernet(0x0800, ipv4(OTHER_IP), OTHERS),
    "the gateway's ipv4": ethernet(0x0800, ipv4(GATEWAY_IP)),
    "another's ipv4, a fragment": ethernet(0x0800, ipv4(OTHER_IP, fragment=0x2001)),
    "an ipv4 of nowhere": ethernet(0x0800, ipv4(IPv4Address("192.0.2.9").packed)),
    "no ipv4": ethernet(0x0800, ipv4(bytes(4))),
    "the host's loopback": ethernet(0x0800, ipv4(IPv4Address("127.0.0.1").packed)),
    "arp reply for another": ethernet(0x0806, arp(ARP_REPLY, MINE, OTHER_IP, IP)),
    "arp reply for the gateway": ethernet(0x0806, arp(ARP_REPLY, MINE, GATEWAY_IP, OTHER_IP)),
    "arp reply of another": ethernet(0x0806, arp(ARP_REPLY, OTHERS, OTHER_IP, IP)),
    "arp request in another's name": ethernet(0x0806, arp(ARP_REQUEST, MINE, OTHER_IP, IP)),
    "arp probe for another's address": ethernet(0x0806, arp(ARP_REQUEST, MINE, bytes(4), OTHER_IP)),
    "arp reply for no address": ethernet(0x0806, arp(ARP_REPLY, MINE, bytes(4), IP)),
    "rarp": ethernet(0x8035, arp(3, MINE, IP, IP)),
    "another's ipv6": ethernet(0x86DD, udp6(OTHER_IP6)),
    "the gateway's ipv6": ethernet(0x86DD, udp6(GATEWAY_IP6)),
    "another's link-local ipv6": ethernet(0x86DD, udp6(OTHER_LOCAL6)),
    "no ipv6": ethernet(0x86DD, udp6(bytes(16))),
    "advertisement of another's address": ethernet(0x86DD, neighbour(IP6, ADVERTISEMENT, OTHER_IP6)),
    "advertisement of the gateway's address": ethernet(0x86DD, neighbour(IP6, ADVERTISEMENT, GATEWAY_IP6)),
    "hidden advertisement": ethernet(0x86DD, neighbour(IP6, ADVERTISEMENT, GATEWAY_IP6, hidden=True)),
    "detection of another's address": ethernet(0x86DD, neighbour(bytes(16), SOLICITATION, OTHER_IP6)),
    "router": ethernet(0x86DD, neighbour(LOCAL6, ROUTER_ADVERTISEMENT, bytes(16))),
    "hidden router": ethernet(0x86DD, neighbour(LOCAL6, ROUTER_ADVERTISEMENT, bytes(16), hidden=True)),
    "redirect": ethernet(0x86DD, neighbour(LOCAL6, REDIRECT, OTHER_IP6)),
    "vlan": ethernet(0x8100, struct.pack("!HH", 5, 0x0800) + ipv4(IP)),
    "priority tag": ethernet(0x8100, struct.pack("!HH", 0, 0x0800) + ipv4(OTHER_IP)),
    "vlan in vlan": ethernet(0x88A8, struct.pack("!HHHH", 5, 0x8100, 6, 0x0800) + ipv4(IP)),
    "spanning tree": bytes.fromhex("0180c2000000") + MINE + struct.pack("!H", 38) + b"\x42\x42\x03" + MARK,
    "lldp": bytes.fromhex("0180c200000e") + MINE + b"\x88\xcc" + MARK,
    "another protocol": ethernet(0x88B5, MARK),
}


class Wire:
    """What comes out of a guest's interface on the other side of the bridge, and at the host."""

    def __init__(self, helper: Helper, sender: Guest, receiver: Guest) -> None:
        self.sender = sender
        self._ends = [_listening(helper.namespace, "ingb0"), _listening(receiver.namespace, "eth0")]

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def arrives(self, frame: bytes) -> set[bool]:
        """Whether `frame` reaches the ends; one that surely does is sent behind it, so nobody waits for what never
        comes."""
        self.sender.send(frame)
        fence = ethernet(0x0800, ipv4(IP)).replace(MARK, b"that was all of this test")
        self.sender.send(fence)
        return {self._before(end, b"that was all of this test") for end in self._ends}

    @staticmethod
    def _before(end: socket.socket, fence: bytes) -> bool:
        seen = False
        while True:
            data = end.recv(2048)
            if fence in data:
                return seen
            seen = seen or MARK in data


def _listening(namespace: Namespace, interface: str) -> socket.socket:
    end = namespace.do(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))  # ETH_P_ALL
    end.bind((interface, 3))
    end.settimeout(30)
    return end


@pytest.fixture(scope="module")
def wire(shared_helper: Helper) -> Iterator[Wire]:
    with shared_helper.guest(2) as sender, shared_helper.guest(3, owner=2) as receiver:
        wire = Wire(shared_helper, sender, receiver)
        yield wire
        wire.close()


@pytest.mark.parametrize("frame", HONEST.values(), ids=HONEST)
def test_honest_frame_arrives(wire: Wire, frame: bytes) -> None:
    assert wire.arrives(frame) == {True}


@pytest.mark.parametrize("frame", SPOOFED.values(), ids=SPOOFED)
def test_spoofed_frame_is_dropped(wire: Wire, frame: bytes) -> None:
    assert wire.arrives(frame) == {False}
