"""An interface's settings, as below /proc/sys/net, which the helper's unit doesn't have. See linux/if_link.h."""

import os
import socket
import struct

from ingle.host_helper import rtnetlink
from ingle.host_helper.errors import KernelRefused

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_RTM_GETLINK = 18
_IFLA_AF_SPEC = 26
_IFLA_INET_CONF, _IFLA_INET6_CONF = 1, 2

# Of an array of 32-bit numbers each: linux/ip.h counts from 1, linux/ipv6.h from 0.
_IPV4_FORWARDING = 1 - 1
_IPV6_DISABLED = 26

_LOOPBACK = 1  # its index, in every network namespace


def forwards_ipv4() -> bool:
    """Whether the host does: the loopback interface follows net.ipv4.ip_forward. Raises KernelRefused."""
    conf = _settings(_LOOPBACK, socket.AF_INET, _IFLA_INET_CONF)
    return conf is not None and conf[_IPV4_FORWARDING] != 0


def has_ipv6(interface: str) -> bool:
    """Whether the interface does IPv6. Raises KernelRefused."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        return False
    conf = _settings(index, socket.AF_INET6, _IFLA_INET6_CONF)
    return conf is not None and conf[_IPV6_DISABLED] == 0


def _settings(index: int, family: int, number: int) -> tuple[int, ...] | None:
    """None: no such protocol."""
    (answer,) = rtnetlink.ask([rtnetlink.question(_RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))])
    if isinstance(answer, int):
        raise KernelRefused(f"settings of interface {index}: {os.strerror(answer)}")
    families = dict(rtnetlink.attributes(answer[_LINK.size :])).get(_IFLA_AF_SPEC, b"")
    conf = dict(rtnetlink.attributes(dict(rtnetlink.attributes(families)).get(family, b""))).get(number)
    return None if conf is None else struct.unpack(f"={len(conf) // 4}i", conf)
