"""Messages to the kernel about interfaces, and what it answers to each. See rtnetlink(7) and netlink(7).

Several in one go. A library that knows all of netlink takes ten times as long, and ten megabytes.
"""

import os
import socket
import struct
from collections.abc import Iterator, Sequence

from ingle.host_helper.errors import KernelRefused

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")

_REQUEST = 0x1
_ACK = 0x4
_DUMP = 0x300
_ERROR, _DONE = 2, 3
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_RECEIVE = 1 << 16
_LINKS, _IPV4_SETTINGS = 1 << 0, 1 << 23  # RTNLGRP_LINK and RTNLGRP_IPV4_NETCONF, as bits


def change(kind: int, flags: int, body: bytes) -> bytes:
    """A message that is answered with an error number, 0 for none."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body


def question(kind: int, body: bytes) -> bytes:
    """A message that is answered with one of the kernel's, or an error number."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST, 1, 0) + body


def attribute(number: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of each."""
    while data:
        length, number = _ATTRIBUTE.unpack_from(data)
        yield number & _TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def ask(messages: Sequence[bytes]) -> list[int | bytes]:
    """To each message the body of its answer, or the number of its error, 0 for none."""
    with _connection() as netlink:
        netlink.send(b"".join(messages))
        answers: list[int | bytes] = []
        while len(answers) < len(messages):
            answers += [_code(body) if kind == _ERROR else body for kind, body in _received(netlink)]
        return answers


def dump(kind: int, body: bytes) -> list[bytes]:
    """All that there are of a kind. Raises KernelRefused."""
    with _connection() as netlink:
        netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0) + body)
        found: list[bytes] = []
        while True:
            for answer, data in _received(netlink):
                if answer == _ERROR:
                    raise KernelRefused(f"rtnetlink: {os.strerror(_code(data))}")
                if answer == _DONE:
                    return found
                found.append(data)


def listener() -> socket.socket:
    """What changes about interfaces and their IPv4 settings can be heard from it. Raises OSError."""
    netlink = _connection()
    netlink.bind((0, _LINKS | _IPV4_SETTINGS))
    return netlink


def heard(netlink: socket.socket) -> list[tuple[int, bytes]]:
    """What has changed, as soon as something does. Raises OSError when that was more than there is room for."""
    return list(_received(netlink))


def _connection() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def _received(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message that has come."""
    data = netlink.recv(_RECEIVE)
    while data:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _code(body: bytes) -> int:
    code: int = _CODE.unpack_from(body)[0]
    return -code
