"""Settings of the network, as below /proc/sys/net, which the helper's unit doesn't have. See linux/netconf.h,
linux/if_link.h."""

import os
import socket
import struct

from ingle.host_helper import rtnetlink
from ingle.host_helper.errors import KernelRefused

_CONF = struct.Struct("=Bxxx")  # struct netconfmsg: family
_RTM_NEWNETCONF, _RTM_GETNETCONF = 80, 82
_NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 1, 2
_ALL = -1
_NUMBER = struct.Struct("=i")

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_RTM_GETLINK = 18
_IFLA_AF_SPEC = 26
_IFLA_INET6_CONF = 2
_DEVCONF_DISABLE_IPV6 = 26  # in an array of 32-bit numbers: linux/ipv6.h


def forwards_ipv4() -> bool:
    """net.ipv4.ip_forward. Raises KernelRefused."""
    everything = rtnetlink.attribute(_NETCONFA_IFINDEX, _NUMBER.pack(_ALL))
    answer = _asked(_RTM_GETNETCONF, _CONF.pack(socket.AF_INET) + everything)
    forwarding = dict(rtnetlink.attributes(answer[_CONF.size :])).get(_NETCONFA_FORWARDING)
    return forwarding is not None and _NUMBER.unpack(forwarding)[0] != 0


def is_news_of_all(kind: int, body: bytes) -> bool:
    """Whether rtnetlink tells that a setting of all interfaces was changed."""
    if kind != _RTM_NEWNETCONF:
        return False
    index = dict(rtnetlink.attributes(body[_CONF.size :])).get(_NETCONFA_IFINDEX)
    return index is not None and _NUMBER.unpack(index)[0] == _ALL


def has_ipv6(interface: str) -> bool:
    """Whether the interface does IPv6. Raises KernelRefused."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        return False
    answer = _asked(_RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))
    families = dict(rtnetlink.attributes(answer[_LINK.size :])).get(_IFLA_AF_SPEC, b"")
    ipv6 = dict(rtnetlink.attributes(families)).get(socket.AF_INET6, b"")
    conf = dict(rtnetlink.attributes(ipv6)).get(_IFLA_INET6_CONF)
    return conf is not None and _NUMBER.unpack_from(conf, 4 * _DEVCONF_DISABLE_IPV6)[0] == 0


def _asked(kind: int, body: bytes) -> bytes:
    (answer,) = rtnetlink.ask([rtnetlink.question(kind, body)])
    if isinstance(answer, int):
        raise KernelRefused(f"settings of the network: {os.strerror(answer)}")
    return answer
