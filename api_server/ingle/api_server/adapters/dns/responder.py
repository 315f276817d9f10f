"""The process that reads what guests ask: apart from the server, with no state, no file and no API, see confine.py.

    python -m ingle.api_server.adapters.dns.responder DESCRIPTOR DOMAIN

Through the descriptor the server tells it who there is, whom to ask and where to listen; what goes back is the id of a
VM that sleeps and that a neighbour has asked for. It ends with the server.
"""

import asyncio
import encodings.idna  # noqa: F401 # else imported by whoever connects, when no file can be opened any more
import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from ingle.api_server.adapters.dns import wire
from ingle.api_server.adapters.dns.answers import Answers, Directory, Forward, Host
from ingle.api_server.adapters.dns.confine import confine, end_with_parent
from ingle.api_server.adapters.dns.upstream import NoAnswer, Upstream, framed, read_framed
from ingle.api_server.host.shares import Shares

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 1 << 16
"""Of the server's."""

_QUESTIONS, _QUESTIONS_EACH = 512, 64
_CONNECTIONS, _CONNECTIONS_EACH = 256, 16
_IDLE_SECONDS = 10.0
_LIFE_SECONDS = 60.0
_MOST_COMPLAINTS = 20
_KNOCK_SECONDS, _MOST_KNOCKS = 1.0, 4096


class Responder:
    """Answers for `domain` wherever it is given a pair of sockets."""

    def __init__(self, domain: str, wake: Callable[[str], None] = lambda vm_id: None) -> None:
        """`wake` is told of a VM that sleeps, by its id, when a neighbour asks for it: once a second for each who
        does."""
        self.directory = Directory()
        self.upstream = Upstream()
        self._answers = Answers(domain, self.directory)
        self._questions = Shares(_QUESTIONS, _QUESTIONS_EACH)
        self._connections = Shares(_CONNECTIONS, _CONNECTIONS_EACH)
        self._under_way: set[asyncio.Task[None]] = set()
        self._closing: list[Callable[[], None]] = []
        self._complaints = 0
        self._wake = wake
        self._knocks: dict[tuple[str, str], float] = {}

    async def listen(self, datagrams: socket.socket, streams: socket.socket) -> None:
        """Answer there from now on."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Questions(self._take), sock=datagrams)
        server = await asyncio.start_server(self._converse, sock=streams)
        self._closing += [transport.close, server.close]

    async def close(self) -> None:
        """Answer nobody any more."""
        for close in self._closing:
            close()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _take(self, message: bytes, asker: str, send: Callable[[bytes], None]) -> None:
        # One too many is as lost as any datagram may be: whoever wants to know asks again.
        if len(message) > wire.LONGEST_QUESTION or not self._questions.take(asker):
            return

        async def work() -> None:
            try:
                reply = await self._reply(message, asker, stream=False)
                if reply is not None:
                    send(reply)
            finally:
                self._questions.give(asker)

        task = asyncio.create_task(work())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asker: str = writer.get_extra_info("peername", ("",))[0]
        if not asker or not self._connections.take(asker):
            writer.transport.abort()
            return
        try:
            async with asyncio.timeout(_LIFE_SECONDS):
                while await self._exchange(reader, writer, asker):
                    pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # a peer that doesn't read would hold up a close
        finally:
            self._connections.give(asker)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asker: str) -> bool:
        """One question of a connection and its answer. False: it is over."""
        async with asyncio.timeout(_IDLE_SECONDS):
            message = await read_framed(reader, wire.LONGEST_QUESTION)
        async with asyncio.timeout(_IDLE_SECONDS):
            reply = await self._reply(message, asker, stream=True)
            if reply is None:
                return False
            writer.write(framed(reply))
            await writer.drain()
        return True

    async def _reply(self, message: bytes, asker: str, *, stream: bool) -> bytes | None:
        """None for what is no question: nothing is owed to noise."""
        try:
            question = wire.parse(message)
            try:
                reply = self._answers.to(question, asker)
                self._knock(question, asker)
            except Forward:
                try:
                    return await self.upstream.ask(message, stream=stream)
                except NoAnswer:
                    reply = wire.reply(question, code=wire.SERVFAIL, ours=False)
        except wire.Noise:
            return None
        except Exception:
            # A fault of ours that one guest has found must not be all guests' loss. The log is not the guest's, either.
            self._complaints += 1
            if self._complaints <= _MOST_COMPLAINTS:
                log.exception("a question could not be answered")
            return None
        return reply if stream else wire.for_datagram(reply, question)

    def _knock(self, question: wire.Question, asker: str) -> None:
        """At a VM that sleeps, if the question is for one. The answer does not wait for it: whoever connects then finds
        it awake, or tries until it is."""
        if not (vm_id := self._answers.sleeper(question, asker)):
            return
        now = asyncio.get_running_loop().time()
        if (asker, vm_id) not in self._knocks:
            self._knocks = {each: until for each, until in self._knocks.items() if until > now}
        if now >= self._knocks.get((asker, vm_id), now) and len(self._knocks) < _MOST_KNOCKS:
            self._knocks[asker, vm_id] = now + _KNOCK_SECONDS
            self._wake(vm_id)


class _Questions(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, str, Callable[[bytes], None]], None]) -> None:
        self._take = take
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own is none by inheritance.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._take(data, addr[0], lambda reply: self._send(reply, addr))

    def _send(self, reply: bytes, addr: tuple[str, int]) -> None:
        if not self._transport.get_write_buffer_size():  # type: ignore[attr-defined] # typeshed lacks it
            self._transport.sendto(reply, addr)  # else the network is full, and more would only fill memory


async def respond(from_server: socket.socket, domain: str) -> None:
    """Do what the server says, until it is gone."""

    def wake(vm_id: str) -> None:
        with suppress(OSError):  # a server that has not read the others does not need to be told more
            from_server.send(vm_id.encode())

    responder = Responder(domain, wake)
    loop = asyncio.get_running_loop()
    gone = loop.create_future()
    listening: set[asyncio.Task[None]] = set()

    def hear() -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(from_server, LONGEST_MESSAGE, 2)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            loop.remove_reader(from_server)
            if not gone.done():
                gone.set_result(None)
            return
        told: dict[str, Any] = json.loads(data)
        if "servers" in told:
            responder.upstream.servers = told["servers"]
        if "vm" in told:
            responder.directory.tell(told["vm"], Host(**told["host"]) if told["host"] else None)
        if descriptors:
            task = asyncio.create_task(responder.listen(*(socket.socket(fileno=each) for each in descriptors)))
            listening.add(task)
            task.add_done_callback(listening.discard)

    from_server.setblocking(False)
    loop.add_reader(from_server, hear)
    await gone
    await responder.close()


def main() -> None:
    """Never returns with the server alive."""
    end_with_parent()
    logging.basicConfig(format="%(name)s: %(message)s")
    from_server = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner() as runner:
        runner.get_loop()  # whatever it takes is opened
        confine()
        runner.run(respond(from_server, sys.argv[2]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # of the terminal that the server was started in
        os._exit(0)
