"""Large receive offload, which some network cards do by themselves: what it has put together can't be forwarded.

The kernel turns it off where sysctl(8) turns forwarding on, but not where netlink does. See linux/ethtool.h.
"""

import ctypes
import fcntl
import logging
import socket
import struct

log = logging.getLogger(__name__)

_SIOCETHTOOL = 0x8946
_GET_FLAGS, _SET_FLAGS = 0x25, 0x26
_LRO = 1 << 15
_REQUEST = struct.Struct("=16sQ16x")  # struct ifreq, with a pointer


class _Value(ctypes.Structure):
    """struct ethtool_value."""

    _fields_ = (("cmd", ctypes.c_uint32), ("data", ctypes.c_uint32))


def disable_receive(interface: str) -> None:
    """The interface does it no more. What doesn't know of it is fine."""
    value = _Value(_GET_FLAGS, 0)
    request = _REQUEST.pack(interface.encode(), ctypes.addressof(value))
    # Any socket will do, and this family we may have.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        try:
            fcntl.ioctl(way, _SIOCETHTOOL, request)
            if value.data & _LRO:
                value.cmd, value.data = _SET_FLAGS, value.data & ~_LRO
                fcntl.ioctl(way, _SIOCETHTOOL, request)
        except OSError as error:
            log.debug("%s: %s", interface, error)
