"""The server on real sockets, and a real one behind it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dnslib import RCODE, DNSRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingle.api_server.adapters.dns.answers import Directory, Host
from ingle.api_server.adapters.dns.server import DnsServer
from ingle.api_server.adapters.dns.upstream import Upstream, framed, read_framed
from ingle.api_server.model.errors import HostProblem, Reason

WEB = Host("web", "default", "10.213.0.2", nat=False)
BIG = Host("big", "default", "10.213.0.9", nat=True)
DIRECTORY = Directory(by_name={"web": WEB, "big": BIG}.get, by_address={WEB.address: WEB}.get)
HERE = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        stream.bind((HERE, 0))
        port: int = stream.getsockname()[1]
        datagram.bind((HERE, port))
        return port


@asynccontextmanager
async def serving(upstream: Upstream | None = None) -> AsyncIterator[int]:
    port = free_port()
    server = DnsServer("vm", DIRECTORY, upstream, port)
    await server.serve(HERE)
    try:
        yield port
    finally:
        await server.close()


class Caller(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard.put_nowait(data)


async def by_datagram(port: int, *questions: bytes) -> bytes:
    """The first thing that is heard after all of them were sent."""
    loop = asyncio.get_running_loop()
    transport, caller = await loop.create_datagram_endpoint(Caller, remote_addr=(HERE, port))
    try:
        for question in questions:
            transport.sendto(question)
        async with asyncio.timeout(10):
            return await caller.heard.get()
    finally:
        transport.close()


async def by_stream(port: int, *questions: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_connection(HERE, port)
    try:
        writer.writelines(framed(question) for question in questions)
        async with asyncio.timeout(10):
            return [await read_framed(reader) for _ in questions]
    finally:
        writer.close()


def addresses(reply: bytes) -> list[str]:
    return [str(answer.rdata) for answer in DNSRecord.parse(reply).rr]


async def test_names_are_answered_by_datagram_and_by_stream() -> None:
    async with serving() as port:
        question = DNSRecord.question("web.vm").pack()
        assert addresses(await by_datagram(port, question)) == [WEB.address]
        assert [addresses(reply) for reply in await by_stream(port, question, question)] == [[WEB.address]] * 2


async def test_what_is_not_ours_comes_from_the_hosts_servers_and_the_first_that_answers_is_heard(
    tmp_path: Path,
) -> None:
    async with serving() as behind:  # any server will do; this one says NXDOMAIN or an address of its own
        configuration = tmp_path / "resolv.conf"
        configuration.write_text(f"# by hand\nsearch example\nnameserver 127.0.0.99\nnameserver {HERE}\n")
        other = DnsServer(
            "elsewhere", Directory(lambda _: None, lambda _: None), Upstream(configuration, behind), free_port()
        )
        port = other._port
        await other.serve(HERE)
        try:
            question = DNSRecord.question("web.vm")
            reply = await by_datagram(port, question.pack())
            assert addresses(reply) == [WEB.address]
            assert DNSRecord.parse(reply).header.id == question.header.id
            assert [addresses(each) for each in await by_stream(port, question.pack())] == [[WEB.address]]
        finally:
            await other.close()


async def test_without_a_server_behind_it_the_failure_is_told(tmp_path: Path) -> None:
    for text in ("", "nameserver 127.0.0.99\n", None):
        configuration = tmp_path / "resolv.conf"
        configuration.unlink(missing_ok=True)
        if text is not None:
            configuration.write_text(text)
        async with serving(Upstream(configuration, free_port())) as port:
            reply = DNSRecord.parse(await by_datagram(port, DNSRecord.question("debian.org").pack()))
            assert reply.header.rcode == RCODE.SERVFAIL


async def test_noise_is_not_answered_and_does_no_harm() -> None:
    async with serving() as port:
        response = DNSRecord.question("big.vm").reply().pack()
        noise = [b"", b"\0", b"x" * 11, b"\xff" * 600, response]
        good = DNSRecord.question("web.vm")
        reply = await by_datagram(port, *noise, good.pack())
        assert DNSRecord.parse(reply).header.id == good.header.id
        assert addresses(reply) == [WEB.address]


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
async def test_whatever_comes_is_answered_or_not_and_raises_nothing(noise: bytes) -> None:
    server = DnsServer("vm", DIRECTORY, Upstream(Path("/nonexistent")))
    await server._reply(noise, HERE, stream=True)
    await server._reply(DNSRecord.question("web.vm").pack()[:12] + noise, WEB.address, stream=False)


async def test_an_address_that_is_not_there_yet_can_be_served() -> None:
    server = DnsServer("vm", DIRECTORY, port=free_port())
    try:
        await server.serve("10.213.200.1")
        await server.serve("10.213.200.1")
    finally:
        await server.close()


async def test_a_port_that_somebody_has_is_told_and_can_be_tried_again() -> None:
    port = free_port()
    server = DnsServer("vm", DIRECTORY, port=port)
    try:
        with socket.create_server((HERE, port)), pytest.raises(HostProblem, match="another program has it") as refused:
            await server.serve(HERE)
        assert refused.value.reason is Reason.PORT_REFUSED
        await server.serve(HERE)
        assert addresses(await by_datagram(port, DNSRecord.question("web.vm").pack())) == [WEB.address]
    finally:
        await server.close()
