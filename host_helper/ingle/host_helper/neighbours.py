"""Neighbour entries of a bridge, several in one message to the kernel. See rtnetlink(7) and linux/neighbour.h.

On the way of every start, and pyroute2 takes ten times as long for it.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address

from ingle.host_helper.errors import KernelRefused

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_MESSAGE = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, interface, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")

_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_REQUEST_AND_ACK = 0x5
_CREATE_OR_REPLACE = 0x500
_ERROR = 2
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80


def add(interface: int, mac: str, addresses: Iterable[str]) -> None:
    """These addresses are `mac`'s, for good. Raises KernelRefused."""
    for code in _ask(_RTM_NEWNEIGH, _CREATE_OR_REPLACE, interface, mac, addresses):
        if code:
            raise KernelRefused(f"neighbour {mac}: {os.strerror(code)}")


def remove(interface: int, mac: str, addresses: Iterable[str]) -> None:
    """Nobody knows whose these are. Those that are not there needn't be removed. Raises KernelRefused."""
    for code in _ask(_RTM_DELNEIGH, 0, interface, mac, addresses):
        if code not in {0, errno.ENOENT, errno.ENODEV, errno.ENXIO}:
            raise KernelRefused(f"neighbour {mac}: {os.strerror(code)}")


def pack(kind: int, flags: int, interface: int, mac: str, address: str) -> bytes:
    """One message."""
    ip = ip_address(address)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    body = _MESSAGE.pack(family, interface, _NUD_PERMANENT, 0, 0)
    for number, value in (_NDA_DST, ip.packed), (_NDA_LLADDR, bytes.fromhex(mac.replace(":", ""))):
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_AND_ACK | flags, 1, 0) + body


def _ask(kind: int, flags: int, interface: int, mac: str, addresses: Iterable[str]) -> list[int]:
    """The error number of each message, 0 for none."""
    messages = [pack(kind, flags, interface, mac, address) for address in addresses]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.send(b"".join(messages))
        codes: list[int] = []
        while len(codes) < len(messages):
            data = netlink.recv(1 << 16)
            while data:
                length, answer, *_ = _HEADER.unpack_from(data)
                if answer == _ERROR:
                    (code,) = struct.unpack_from("=i", data, _HEADER.size)
                    codes.append(-code)
                data = data[(length + 3) & ~3 :]
        return codes
