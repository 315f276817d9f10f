"""The kernel's interfaces: asked for, made, changed and deleted. See rtnetlink(7), linux/if_link.h and linux/if_addr.h.

Knows no names of ours; links.py does.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ingle.host_helper import rtnetlink
from ingle.host_helper.errors import KernelRefused
from ingle.host_helper.rtnetlink import attribute, attributes

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_NUMBER = struct.Struct("=I")

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_NEWADDR = 16, 17, 18, 20
_CREATE_OR_FAIL, _CREATE_OR_REPLACE = 0x600, 0x500

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_GROUP = 1, 3, 10, 18, 26, 27
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_BR_MCAST_SNOOPING = 23
_IFLA_INET_CONF = 1
_DEVCONF_FORWARDING = 1  # of IPv4, and the first number of what the kernel tells: linux/ip.h
_IFLA_TUN_OWNER = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02
_IFF_UP = 1

GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO})
"""Errors that say of an interface that it is not there."""

QUIET = attribute(
    _IFLA_AF_SPEC,
    attribute(socket.AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))),
)
"""No link-local address, so no noise of our side of a tap. For `change`."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What the kernel says of one."""

    name: str
    index: int
    kind: str
    group: int
    master: int
    up: bool
    owner: int
    """Of a tap; -1 when it has none."""
    forwards: bool
    """IPv4 that comes in by it."""


def everyone() -> list[Interface]:
    """Every interface there is. Raises KernelRefused."""
    return [_interface(body) for body in rtnetlink.dump(_RTM_GETLINK, _body(0))]


def get(index: int) -> Interface:
    """One of them. Raises KernelRefused."""
    (answer,) = rtnetlink.ask([rtnetlink.question(_RTM_GETLINK, _body(index))])
    if isinstance(answer, int):
        raise KernelRefused(f"interface {index}: {os.strerror(answer)}")
    return _interface(answer)


def add_bridge(name: str, mac: str, group: int) -> None:
    """A bridge that doesn't listen to who wants which multicast. Raises KernelRefused."""
    snooping = attribute(_IFLA_BR_MCAST_SNOOPING, bytes([0]))
    about = attribute(_IFLA_INFO_KIND, b"bridge") + attribute(_IFLA_INFO_DATA, snooping)
    body = _body(0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    body += address_of(mac) + in_group(group) + attribute(_IFLA_LINKINFO, about)
    _do(f"bridge {name}", rtnetlink.change(_RTM_NEWLINK, _CREATE_OR_FAIL, body))


def change(index: int, *what: bytes, up: bool = False) -> None:
    """Give an interface other attributes, of those below, all of them or none. Raises KernelRefused."""
    body = _body(index, _IFF_UP if up else 0) + b"".join(what)
    _do(f"interface {index}", rtnetlink.change(_RTM_NEWLINK, 0, body))


def address_of(mac: str) -> bytes:
    """For `change`: its MAC."""
    return attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))


def in_group(group: int) -> bytes:
    """For `change`: the group it is in."""
    return attribute(_IFLA_GROUP, _NUMBER.pack(group))


def forwarding(on: bool) -> bytes:
    """For `change`: whether IPv4 that comes in by it is forwarded."""
    switch = attribute(_DEVCONF_FORWARDING, _NUMBER.pack(on))
    return attribute(_IFLA_AF_SPEC, attribute(socket.AF_INET, attribute(_IFLA_INET_CONF, switch)))


def name_of_news(kind: int, body: bytes) -> str | None:
    """Which interface came or changed, if that is what rtnetlink tells."""
    if kind != _RTM_NEWLINK:
        return None
    return dict(attributes(body[_LINK.size :]))[_IFLA_IFNAME].rstrip(b"\0").decode()


def on_bridge(index: int) -> bytes:
    """For `change`: the bridge that leads to it."""
    return attribute(_IFLA_MASTER, _NUMBER.pack(index))


def add_address(index: int, address: IPv4Address | IPv6Address, prefix_length: int) -> None:
    """It has this address, at once. Raises KernelRefused."""
    family, flags = (socket.AF_INET, 0) if address.version == 4 else (socket.AF_INET6, _IFA_F_NODAD)
    body = _ADDRESS.pack(family, prefix_length, flags, 0, index)
    body += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    _do(f"address {address}", rtnetlink.change(_RTM_NEWADDR, _CREATE_OR_REPLACE, body))


def delete(index: int) -> None:
    """There is no such interface. Raises KernelRefused."""
    _do(f"interface {index}", rtnetlink.change(_RTM_DELLINK, 0, _body(index)), GONE)


def delete_group(group: int) -> None:
    """There is no interface of this group. Raises KernelRefused."""
    _do(f"group {group}", rtnetlink.change(_RTM_DELLINK, 0, _body(0) + in_group(group)), GONE)


def _do(what: str, message: bytes, fine: Iterable[int] = ()) -> None:
    for code in rtnetlink.ask([message]):
        if isinstance(code, int) and code != 0 and code not in fine:
            raise KernelRefused(f"{what}: {os.strerror(code)}")


def _body(index: int, flags: int = 0) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags)


def _interface(body: bytes) -> Interface:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = dict(attributes(body[_LINK.size :]))
    info = dict(attributes(found.get(_IFLA_LINKINFO, b"")))
    kind = info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    families = dict(attributes(found.get(_IFLA_AF_SPEC, b"")))
    conf = dict(attributes(families.get(socket.AF_INET, b""))).get(_IFLA_INET_CONF)
    owner = dict(attributes(info.get(_IFLA_INFO_DATA, b""))).get(_IFLA_TUN_OWNER) if kind == "tun" else None
    return Interface(
        name=found[_IFLA_IFNAME].rstrip(b"\0").decode(),
        index=index,
        kind=kind,
        group=_number(found.get(_IFLA_GROUP)) or 0,
        master=_number(found.get(_IFLA_MASTER)) or 0,
        up=bool(flags & _IFF_UP),
        owner=-1 if owner is None else _number(owner) or 0,
        forwards=conf is not None and bool(_NUMBER.unpack_from(conf)[0]),
    )


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(_NUMBER.unpack(value)[0])
