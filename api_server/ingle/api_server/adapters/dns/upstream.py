"""Asking the host's own servers."""

import asyncio
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

Server: TypeAlias = tuple[int, list[Any]]
"""Family and address, as socket(2) and connect(2) take them."""

_NAMESERVER = re.compile(r"^nameserver\s+(\S+)", re.MULTILINE)
_PORT = 53
_MOST_SERVERS = 3  # MAXNS of resolv.conf(5)
_SECONDS = 3.0
_LONGEST_ANSWER = 1 << 16


class NoAnswer(Exception):
    """None of the servers did."""


def servers_of(configuration: Path, port: int = _PORT) -> list[Server]:
    """Those of a resolv.conf(5), in its order: IPv4, IPv6, or IPv6 of one link, as fe80::1%eth0."""
    try:
        text = configuration.read_text(errors="replace")
    except OSError:
        return []
    servers: list[Server] = []
    for address in _NAMESERVER.findall(text)[:_MOST_SERVERS]:
        try:
            ((family, _, _, _, place), *_) = socket.getaddrinfo(
                address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )
        except (OSError, UnicodeError):
            continue
        servers.append((int(family), list(place)))
    return servers


class Upstream:
    """The first of its servers that answers; they are told anew when the host's change."""

    def __init__(self, servers: Sequence[Server] = ()) -> None:
        self.servers = servers

    async def ask(self, question: bytes, *, stream: bool) -> bytes:
        """The first answer, by TCP when `stream`. Raises NoAnswer."""
        for family, place in self.servers:
            kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
            try:
                # From a port of its own, which the kernel picks: nobody else can guess where the answer is awaited.
                with socket.socket(family, kind | socket.SOCK_NONBLOCK) as to_server:
                    async with asyncio.timeout(_SECONDS):
                        await asyncio.get_running_loop().sock_connect(to_server, tuple(place))
                        return await (_by_stream if stream else _by_datagram)(to_server, question)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
        raise NoAnswer


async def _by_stream(to_server: socket.socket, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(sock=to_server.dup())
    try:
        writer.write(framed(question))
        return await read_framed(reader)
    finally:
        writer.close()


async def _by_datagram(to_server: socket.socket, question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(to_server, question)
    while True:
        answer = await loop.sock_recv(to_server, _LONGEST_ANSWER)
        if answer[:2] == question[:2]:
            return answer


def framed(message: bytes) -> bytes:
    """As TCP carries it, RFC 1035 section 4.2.2."""
    return len(message).to_bytes(2, "big") + message


async def read_framed(reader: asyncio.StreamReader, longest: int = _LONGEST_ANSWER) -> bytes:
    """One message. Raises IncompleteReadError at the end of the stream, and at a message that is too long."""
    length = int.from_bytes(await reader.readexactly(2), "big")
    if length > longest:
        raise asyncio.IncompleteReadError(b"", length)
    return await reader.readexactly(length)
