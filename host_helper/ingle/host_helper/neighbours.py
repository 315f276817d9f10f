"""Neighbour entries of a bridge, several in one message to the kernel. See rtnetlink(7) and linux/neighbour.h."""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address

from ingle.host_helper import rtnetlink
from ingle.host_helper.errors import KernelRefused

_MESSAGE = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, interface, state, flags, type

_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_CREATE_OR_REPLACE = 0x500
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
        if code not in {0, errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EAFNOSUPPORT}:
            raise KernelRefused(f"neighbour {mac}: {os.strerror(code)}")


def pack(interface: int, mac: str, address: str) -> bytes:
    """The body of a message about one."""
    ip = ip_address(address)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    addresses = rtnetlink.attribute(_NDA_DST, ip.packed)
    addresses += rtnetlink.attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return _MESSAGE.pack(family, interface, _NUD_PERMANENT, 0, 0) + addresses


def _ask(kind: int, flags: int, interface: int, mac: str, addresses: Iterable[str]) -> list[int]:
    """The error number of each message, 0 for none."""
    messages = [rtnetlink.change(kind, flags, pack(interface, mac, address)) for address in addresses]
    return [answer for answer in rtnetlink.ask(messages) if isinstance(answer, int)]
