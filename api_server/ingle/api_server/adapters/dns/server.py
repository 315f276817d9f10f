"""NameService: UDP and TCP at every gateway, and at the host's loopback.

The port is one that needs no rights; the firewall leads port 53 of a gateway to it.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import cast

from dnslib import RCODE, DNSError, DNSRecord

from ingle.api_server.adapters.dns.answers import Answers, Directory, Forward
from ingle.api_server.adapters.dns.upstream import NoAnswer, Upstream, framed, read_framed
from ingle.api_server.model.errors import HostProblem, Reason

log = logging.getLogger(__name__)

PORT = 10053
LOOPBACK = "127.0.0.1"

_IP_FREEBIND = 15  # ip(7); the bridge that has the address may come later, or go and come again
_MOST_AT_ONCE = 256
_IDLE_SECONDS = 10.0
_PLAIN_UDP_BYTES = 512  # RFC 1035, 2.3.4


class DnsServer:
    """Answers for `domain`, until it is closed."""

    def __init__(self, domain: str, directory: Directory, upstream: Upstream | None = None, port: int = PORT) -> None:
        self._answers = Answers(domain, directory)
        self._upstream = upstream or Upstream()
        self._port = port
        self._serving: dict[str, Callable[[], None]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def serve(self, gateway: str) -> None:
        if gateway in self._serving:
            return
        self._serving[gateway] = lambda: None  # a second caller meanwhile has nothing to do
        try:
            self._serving[gateway] = await self._listen(gateway)
        except OSError as error:
            del self._serving[gateway]
            who = "another program has it" if error.errno == errno.EADDRINUSE else error.strerror
            raise HostProblem(
                Reason.PORT_REFUSED, f"DNS at {gateway} port {self._port}: {who}", f"ss -lnp | grep :{self._port}"
            ) from error

    async def close(self) -> None:
        """Answer nobody any more."""
        for stop in self._serving.values():
            stop()
        self._serving.clear()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _listen(self, address: str) -> Callable[[], None]:
        datagrams = _bound(address, self._port, socket.SOCK_DGRAM)
        try:
            streams = _bound(address, self._port, socket.SOCK_STREAM)
        except OSError:
            datagrams.close()
            raise
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Questions(self._take), sock=datagrams)
        server = await asyncio.start_server(self._converse, sock=streams)

        def stop() -> None:
            transport.close()
            server.close()

        return stop

    def _take(self, question: bytes, asker: str, send: Callable[[bytes], None]) -> None:
        if len(self._under_way) >= _MOST_AT_ONCE:
            return  # as lost as any datagram may be: whoever wants to know asks again

        async def work() -> None:
            reply = await self._reply(question, asker, stream=False)
            if reply is not None:
                send(reply)

        task = asyncio.create_task(work())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asker = writer.get_extra_info("peername")[0]
        try:
            while True:
                async with asyncio.timeout(_IDLE_SECONDS):
                    question = await read_framed(reader)
                    reply = await self._reply(question, asker, stream=True)
                    if reply is None:
                        return
                    writer.write(framed(reply))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _reply(self, question: bytes, asker: str, *, stream: bool) -> bytes | None:
        """None for what is no question: nothing is owed to noise."""
        try:
            record = DNSRecord.parse(question)
        except (DNSError, ValueError, IndexError):
            return None
        if record.header.qr:
            return None
        try:
            reply = self._answers.to(record, asker)
        except Forward:
            try:
                return await self._upstream.ask(question, stream=stream)
            except NoAnswer:
                reply = record.reply(ra=1, aa=0)
                reply.header.rcode = RCODE.SERVFAIL
        packed: bytes = reply.pack()
        return packed if stream or len(packed) <= _PLAIN_UDP_BYTES else bytes(reply.truncate().pack())


class _Questions(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, str, Callable[[bytes], None]], None]) -> None:
        self._take = take
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own is none by inheritance.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._take(data, addr[0], lambda reply: self._transport.sendto(reply, addr))


def _bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
