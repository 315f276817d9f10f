"""Asking the host's own servers."""

import asyncio
import re
from pathlib import Path

_RESOLV_CONF = Path("/etc/resolv.conf")
_NAMESERVER = re.compile(r"^nameserver\s+(\S+)", re.MULTILINE)
_PORT = 53
_SECONDS = 3.0


class NoAnswer(Exception):
    """None of the servers did."""


class Upstream:
    """The servers of resolv.conf(5), in its order; it is read at every question, because networks change."""

    def __init__(self, configuration: Path = _RESOLV_CONF, port: int = _PORT) -> None:
        self._configuration = configuration
        self._port = port

    async def ask(self, question: bytes, *, stream: bool) -> bytes:
        """The first answer, by TCP when `stream`. Raises NoAnswer."""
        for server in self._servers():
            try:
                async with asyncio.timeout(_SECONDS):
                    return await (_by_stream if stream else _by_datagram)(server, self._port, question)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
        raise NoAnswer

    def _servers(self) -> list[str]:
        try:
            return _NAMESERVER.findall(self._configuration.read_text())
        except FileNotFoundError:
            return []


async def _by_stream(server: str, port: int, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(framed(question))
        return await read_framed(reader)
    finally:
        writer.close()


def framed(message: bytes) -> bytes:
    """As TCP carries it, RFC 1035 section 4.2.2."""
    return len(message).to_bytes(2, "big") + message


async def read_framed(reader: asyncio.StreamReader) -> bytes:
    """One message. Raises IncompleteReadError at the end of the stream."""
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


class _Datagram(asyncio.DatagramProtocol):
    def __init__(self, question: bytes) -> None:
        self._id = question[:2]
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[:2] == self._id and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _by_datagram(server: str, port: int, question: bytes) -> bytes:
    """From a port of its own, which the kernel picks: nobody else can guess where the answer is awaited."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagram(question), remote_addr=(server, port)
    )
    try:
        transport.sendto(question)
        return await protocol.answer
    finally:
        transport.close()
