"""Stand-ins for VMs: a network namespace behind a tap, with somebody in between who copies frames as a VMM would."""

import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address

from helper.namespaces import Namespace

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP_NO_PI = 0x1002

SOON = 0.3
"""Seconds to wait for an answer that is not to come."""


def open_tap(namespace: Namespace, name: str, uid: int) -> int:
    """Open a tap as `uid` would. The device's own file mode is udev's business, so root opens that."""

    def attach() -> int:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_NO_PI))
        return descriptor

    # Which namespace a descriptor is for is settled here, see drivers/net/tun.c, tun_chr_open().
    descriptor = namespace.do(lambda: os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    try:
        return namespace.do(attach, uid)
    except BaseException:
        os.close(descriptor)
        raise


class Guest:
    """A kernel with one interface, eth0, configured as told, which the tap leads to."""

    def __init__(self, host: Namespace, tap: str, uid: int, mac: str, ipv4: str, ipv6: str) -> None:
        self.ipv4, self.ipv6 = ipv4, ipv6
        self.namespace = Namespace()
        self.tap = open_tap(host, tap, uid)
        self._inner = open_tap(self.namespace, "eth0", 0)
        self._end, self._ended = os.pipe()
        gateway4 = str(IPv4Address(int(IPv4Address(ipv4)) & ~0xFF | 1))
        gateway6 = f"{ipv6.rpartition('::')[0]}::1"
        for command in (
            f"ip link set eth0 address {mac} up",
            f"ip addr add {ipv4}/24 dev eth0",
            f"ip addr add {ipv6}/64 dev eth0 nodad",
            f"ip route add default via {gateway4}",
            f"ip -6 route add default via {gateway6}",
        ):
            self.namespace.run(*command.split())
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.close(self._ended)
        self._thread.join()
        for descriptor in (self.tap, self._inner, self._end):
            os.close(descriptor)
        self.namespace.close()

    def send(self, frame: bytes) -> None:
        """A frame of whatever content."""
        os.write(self.tap, frame)

    def listen(self, port: int, kind: socket.SocketKind = socket.SOCK_STREAM, family: int = socket.AF_INET6) -> "Echo":
        return Echo(self.namespace, port, kind, family)

    def _copy(self) -> None:
        ways = {self.tap: self._inner, self._inner: self.tap}
        while True:
            ready, _, _ = select.select([*ways, self._end], [], [])
            if self._end in ready:
                return
            for source in ready:
                try:
                    os.write(ways[source], os.read(source, 65536))
                except OSError:
                    if source == self.tap:  # deleted under us
                        ways.pop(self.tap, None)


class Echo:
    """A server on every address of a namespace that says who it heard and what."""

    def __init__(self, namespace: Namespace, port: int, kind: socket.SocketKind, family: int, uid: int = 0) -> None:
        self._socket = namespace.do(lambda: socket.socket(family, kind), uid)
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("", port))
        self._stream = kind == socket.SOCK_STREAM
        if self._stream:
            self._socket.listen()
        # Whose an accepted connection is, is who accepts it.
        self._thread = threading.Thread(target=lambda: namespace.do(self._serve, uid), daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()  # until then the kernel has the port taken, whoever has closed it
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                if self._stream:
                    connection, peer = self._socket.accept()
                    threading.Thread(target=self._converse, args=(connection, peer), daemon=True).start()
                else:
                    data, peer = self._socket.recvfrom(2048)
                    if not data:
                        return
                    self._socket.sendto(_answer(peer, data), peer)
            except OSError:
                return

    @staticmethod
    def _converse(connection: socket.socket, peer: tuple[str, int]) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(2048):
                connection.sendall(_answer(peer, data))


def _answer(peer: tuple[str, int], data: bytes) -> bytes:
    return f"{peer[0].removeprefix('::ffff:')} ".encode() + data


def ask(
    namespace: Namespace,
    address: str,
    port: int,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    timeout: float = 30.0,
) -> str | None:
    """Who an Echo there says we are; None when there is no answer, for whatever reason."""
    try:
        with dial(namespace, address, port, kind, timeout) as connection:
            return say(connection)
    except OSError:
        return None


def dial(
    namespace: Namespace,
    address: str,
    port: int,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    timeout: float = 30.0,
) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = namespace.do(lambda: socket.socket(family, kind))
    connection.settimeout(timeout)
    try:
        connection.connect((address, port))
    except OSError:
        connection.close()
        raise
    return connection


def say(connection: socket.socket) -> str | None:
    """The same over a connection that is there."""
    try:
        connection.sendall(b"hello")
        answer = connection.recv(2048).decode()
    except OSError:
        return None
    return answer.removesuffix(" hello") if answer.endswith(" hello") else None


@contextmanager
def echo(namespace: Namespace, port: int, kind: socket.SocketKind = socket.SOCK_STREAM, uid: int = 0) -> Iterator[None]:
    server = Echo(namespace, port, kind, socket.AF_INET6, uid)
    yield
    server.close()
