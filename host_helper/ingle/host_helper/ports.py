"""Which ports programs of the host serve. Asks by sock_diag(7): /proc/net/tcp takes tens of milliseconds to read."""

import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from ingle.host_helper.errors import KernelRefused
from ingle.host_helper.state import Protocol

_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_REQUEST_AND_DUMP = 0x301
_ERROR, _DONE = 2, 3

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
# struct inet_diag_req_v2: family, protocol, extensions, padding, states, then the socket's id, of which only the port
_REQUEST = struct.Struct("=BBBxI2s46x")
# struct inet_diag_msg: family, state, timer, retransmits, port, peer's port, address; the peer's, interface, cookie,
# expiry and two queues; uid
_MESSAGE = struct.Struct("=BBBB2s2s16s40xI")

# A TCP socket that listens, a UDP socket that is bound and has no peer: net/tcp_states.h.
_SERVING = {Protocol.TCP: (socket.IPPROTO_TCP, 1 << 10), Protocol.UDP: (socket.IPPROTO_UDP, 1 << 7)}


def is_served(protocol: Protocol, port: int, at: str = "", *, but: int) -> bool:
    """Whether a program serves the port at that address, or at any but the loopback's, that is not `but`, a uid's.
    Raises KernelRefused."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        return any(
            _is_at(ip_address(address), at)
            for family in (socket.AF_INET, socket.AF_INET6)
            for address, uid in _served(netlink, family, protocol, port)
            if uid != but
        )


def _is_at(address: IPv4Address | IPv6Address, at: str) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return not address.is_loopback and (not at or address.is_unspecified or str(address) == at)


def _served(netlink: socket.socket, family: int, protocol: Protocol, port: int) -> list[tuple[bytes, int]]:
    """The addresses at which the port is served, and the uids of who does."""
    number, states = _SERVING[protocol]
    question = _REQUEST.pack(family, number, 0, states, port.to_bytes(2))
    header = _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 1, 0)
    netlink.send(header + question)
    found: list[tuple[bytes, int]] = []
    while True:
        data = netlink.recv(1 << 16)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _DONE:
                return found
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", data, _HEADER.size)
                raise KernelRefused(f"ports of the host: {os.strerror(-code)}", "modprobe -a tcp_diag udp_diag")
            _, _, _, _, its_port, _, address, uid = _MESSAGE.unpack_from(data, _HEADER.size)
            if its_port == port.to_bytes(2):
                found.append((address[:4] if family == socket.AF_INET else address, uid))
            data = data[(length + 3) & ~3 :]
