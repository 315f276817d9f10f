"""What sockets can be bound to: how long a unix socket's path may be, and which ports are free."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingle.api_server.model.errors import Conflict, HostProblem, Reason

PATH_LIMIT = 107
"""Bytes: sockaddr_un.sun_path holds 108 with the terminating zero, see unix(7)."""


def path_length(path: Path) -> int:
    """Bytes of `path`, as the kernel counts them."""
    return len(os.fsencode(path))


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of `path` to bind or connect to, however long that is, and whatever is mounted where it was meanwhile.
    Raises OSError when its directory is gone."""
    with short_directory(path.parent) as directory:
        yield f"{directory}/{path.name}"


@contextmanager
def short_directory(path: Path) -> Iterator[str]:
    """The same of a directory."""
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}"
    finally:
        os.close(directory)


def check_path(path: Path, remedy: str) -> None:
    """Raise HostProblem(PATH_TOO_LONG) unless a socket can be bound to `path`."""
    length = path_length(path)
    if length > PATH_LIMIT:
        raise HostProblem(
            Reason.PATH_TOO_LONG, f"{path} is {length} bytes long; a socket path can have {PATH_LIMIT}", remedy
        )


def check_port(address: str, port: int, kind: socket.SocketKind) -> None:
    """Raise Conflict(IN_USE) when another socket of that kind has the port, HostProblem when it can't be ours.

    "" is every address."""
    with socket.socket(_family(address), kind) as probe:
        if kind is socket.SOCK_STREAM:  # as a server does: connections that have ended are no hindrance
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise taken(port, kind) from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise HostProblem(
                    Reason.PORT_REFUSED, f"{address} is no address of this host", "see: ip -brief address"
                ) from None
            raise HostProblem(
                Reason.PORT_REFUSED, f"port {port} of the host: {error.strerror}", "choose one from 1024 on"
            ) from None


def taken(port: int, kind: socket.SocketKind) -> Conflict:
    """A program of the host has it."""
    protocol = "tcp" if kind is socket.SOCK_STREAM else "udp"
    return Conflict(
        Reason.IN_USE,
        f"a program of the host has port {port}/{protocol}",
        f"choose another, or see: ss -anp | grep :{port}",
    )


def held(address: str, port: int, kind: socket.SocketKind, *, listens: bool) -> socket.socket:
    """A socket that has the port, so that nobody else gets it, whether it does more than that or not. "" is every
    address, of IPv6 too where there is any. Raises OSError."""
    if not address and socket.has_ipv6:
        try:
            return _bound("::", port, kind, listens=listens)
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
    return _bound(address, port, kind, listens=listens)


def _bound(address: str, port: int, kind: socket.SocketKind, *, listens: bool) -> socket.socket:
    family = _family(address)
    bound = socket.socket(family, kind)
    try:
        if listens:  # whoever has SO_REUSEADDR too could bind beside a socket that doesn't listen
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the least there is, for what nobody reads
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        bound.bind((address, port))
        if listens:
            bound.listen()
    except OSError:
        bound.close()
        raise
    return bound


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
