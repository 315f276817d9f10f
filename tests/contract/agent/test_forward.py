"""Connections to servers in the guest: real sockets behind the real agent."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import Input, InputEnd
from ingle.api_server.model.guest_network import (
    Connected,
    ForwardEvent,
    ForwardSpec,
    GuestPort,
    GuestSocket,
    PeerEnded,
    Received,
)
from ingle.api_server.ports.guest import Conversation, GuestChannel

from .conftest import Agent
from .test_conversation import ERROR, REQUEST, STDIN, frame, hello, kinds, refusal, talk

MIB = 1 << 20
CONNECTED, DATA, DATA_END, STDIN_EOF, RESPONSE = 24, 20, 21, 17, 5

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[GuestPort]:
    """A TCP server that must end its work before the test does."""
    done: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except BaseException as error:  # the test shall see it
            done.put_nowait(error)
        else:
            done.put_nowait(None)
        writer.close()

    listening = await asyncio.start_server(handle, host, 0)
    try:
        yield GuestPort(listening.sockets[0].getsockname()[1])
        async with asyncio.timeout(60):
            problem = await done.get()
        if problem is not None:
            raise problem
    finally:
        listening.close()


async def all_of(events: AsyncIterator[ForwardEvent]) -> tuple[bytes, list[str]]:
    """What was received, and the kinds of the events around it."""
    data, order = bytearray(), []
    async with asyncio.timeout(120):
        async for event in events:
            if isinstance(event, Received):
                data += event.data
            else:
                order.append(type(event).__name__)
    return bytes(data), order


async def next_of(events: AsyncIterator[ForwardEvent]) -> ForwardEvent:
    async with asyncio.timeout(20):
        return await anext(events)


def peak_kib(agent: Agent) -> int:
    return int(Path(f"/proc/{agent.process.pid}/status").read_text().split("VmHWM:")[1].split()[0])


async def test_the_caller_may_end_first_and_still_get_the_answer(channel: GuestChannel) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()
        writer.write(b"you said " + request)

    async with server(answer_at_the_end) as target, channel.forward(ForwardSpec(target)) as forwarding:
        await forwarding.say(Input(b"all of it"))
        await forwarding.say(InputEnd())
        assert await all_of(forwarding.events()) == (b"you said all of it", ["Connected", "PeerEnded"])


async def test_the_server_may_end_first_and_still_be_sent_to(channel: GuestChannel) -> None:
    got = bytearray()

    async def end_then_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        got.extend(await reader.read())

    async with server(end_then_read) as target, channel.forward(ForwardSpec(target)) as forwarding:
        events = forwarding.events()
        assert await next_of(events) == Connected(f"127.0.0.1:{target.port}")
        assert await next_of(events) == Received(b"bye")
        assert await next_of(events) == PeerEnded()
        await forwarding.say(Input(b"after your end"))
        await forwarding.say(InputEnd())
        with pytest.raises(StopAsyncIteration):
            await next_of(events)
    assert got == b"after your end"


async def test_fifty_megabytes_each_way_at_once(channel: GuestChannel) -> None:
    there, back = os.urandom(MIB) * 50, os.urandom(MIB) * 50
    arrived = hashlib.sha256()

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            for at in range(0, len(back), MIB):
                writer.write(back[at : at + MIB])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        while data := await reader.read(MIB):
            arrived.update(data)
        await sending

    async with server(both) as target, channel.forward(ForwardSpec(target)) as forwarding:

        async def send() -> None:
            for at in range(0, len(there), MIB):
                await forwarding.say(Input(there[at : at + MIB]))
            await forwarding.say(InputEnd())

        sending = asyncio.create_task(send())
        received, order = await all_of(forwarding.events())
        await sending
    assert order == ["Connected", "PeerEnded"]
    assert hashlib.sha256(received).digest() == hashlib.sha256(back).digest()
    assert arrived.digest() == hashlib.sha256(there).digest()


async def test_a_slow_reader_on_either_side_costs_no_memory(start_agent: Callable[..., Agent]) -> None:
    agent, size = start_agent(), 100 * MIB

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            for _ in range(size // MIB):
                writer.write(bytes(MIB))
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        received = await slowly(lambda: reader.read(MIB))
        await sending
        assert received == size

    async def slowly(read: Callable[[], Awaitable[bytes]]) -> int:
        received = 0
        while data := await read():
            received += len(data)
            if received < 5 * MIB:
                await asyncio.sleep(0.005)
        return received

    async with server(both) as target, agent.channel().forward(ForwardSpec(target)) as forwarding:

        async def send() -> None:
            for _ in range(size // MIB):
                await forwarding.say(Input(bytes(MIB)))
            await forwarding.say(InputEnd())

        async def read() -> bytes:
            event = await anext(events)
            return event.data if isinstance(event, Received) else b""

        sending, events = asyncio.create_task(send()), forwarding.events()
        await anext(events)
        assert await slowly(read) == size
        await sending
        with pytest.raises(StopAsyncIteration):
            await next_of(events)
    assert peak_kib(agent) < 30_000


async def test_a_server_on_ipv6_alone_is_found(channel: GuestChannel) -> None:
    async def hello_there(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"six")

    async with server(hello_there, "::1") as target:
        for host in ("", "localhost", "::1"):
            spec = ForwardSpec(GuestPort(target.port, host))
            async with channel.forward(spec) as forwarding:
                events = forwarding.events()
                assert await next_of(events) == Connected(f"[::1]:{target.port}")
                assert await next_of(events) == Received(b"six")


async def test_nobody_listens_names_the_port_and_what_to_type(channel: GuestChannel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(GuestError, match=f"nobody listens on port {port} in the guest") as caught:
        async with channel.forward(ForwardSpec(GuestPort(port))):
            pass
    assert caught.value.reason is Reason.CONNECTION_REFUSED
    assert "ingle vm ports" in caught.value.remedy


async def test_a_server_that_does_not_accept_is_given_up(channel: GuestChannel) -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    try:
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        with pytest.raises(GuestError, match="did not answer within 300ms") as caught:
            async with channel.forward(ForwardSpec(GuestPort(full.getsockname()[1]), timeout_seconds=0.3)):
                pass
        assert caught.value.reason is Reason.CONNECTION_TIMED_OUT
    finally:
        for each in (full, *waiting):
            each.close()


async def test_a_host_that_has_no_address_is_unreachable(channel: GuestChannel) -> None:
    with pytest.raises(GuestError, match=r"can't resolve the name|did not answer") as caught:
        async with channel.forward(ForwardSpec(GuestPort(80, "no-such-host.invalid"))):
            pass
    assert caught.value.reason in (Reason.HOST_UNREACHABLE, Reason.CONNECTION_TIMED_OUT)


async def test_a_server_that_breaks_the_connection_is_told_apart_from_one_that_ends_it(channel: GuestChannel) -> None:
    async def break_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"last words")
        await writer.drain()
        await reader.readexactly(1)
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with server(break_it) as target, channel.forward(ForwardSpec(target)) as forwarding:
        events = forwarding.events()
        await next_of(events)
        assert await next_of(events) == Received(b"last words")
        await forwarding.say(Input(b"x"))
        with pytest.raises(GuestError) as caught:
            await next_of(events)
    assert caught.value.reason is Reason.CONNECTION_RESET


async def test_a_server_that_closes_with_input_unread_breaks_it_too(channel: GuestChannel) -> None:
    """As a program does that exits while a client still sends."""

    async def close_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)

    async with server(close_early) as target, channel.forward(ForwardSpec(target)) as forwarding:
        sending = asyncio.create_task(forwarding.say(Input(bytes(20 * MIB))))
        with pytest.raises(GuestError) as caught:
            await all_of(forwarding.events())
        await sending
    assert caught.value.reason is Reason.CONNECTION_RESET


async def test_a_caller_that_leaves_breaks_the_servers_connection(channel: GuestChannel) -> None:
    async def expect_a_reset(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(5) == b"hello"
        with pytest.raises(ConnectionResetError):
            await reader.read()

    async with server(expect_a_reset) as target, channel.forward(ForwardSpec(target)) as forwarding:
        await forwarding.say(Input(b"hello"))
        await next_of(forwarding.events())
        await asyncio.sleep(0.05)  # leaving drops what wasn't sent yet


async def test_leaving_is_noticed_though_the_server_reads_nothing(start_agent: Callable[..., Agent]) -> None:
    channel = start_agent().channel()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with channel.forward(ForwardSpec(GuestPort(listening.getsockname()[1]))) as forwarding:
            sending = asyncio.create_task(forwarding.say(Input(bytes(50 * MIB))))
            accepted, _ = await asyncio.to_thread(listening.accept)
            while sending.done() or (await channel.activity()).forwards != 1:
                await asyncio.sleep(0.01)
        sending.cancel()
        async with asyncio.timeout(20):
            while (await channel.activity()).forwards != 0:
                await asyncio.sleep(0.01)
        accepted.close()


async def test_a_unix_socket_half_closes_as_well(channel: GuestChannel, tmp_path: Path) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    path = str(tmp_path / "s.sock")
    listening = await asyncio.start_unix_server(answer_at_the_end, path)
    async with channel.forward(ForwardSpec(GuestSocket(path))) as forwarding:
        await forwarding.say(Input(b"through a file"))
        await forwarding.say(InputEnd())
        assert await all_of(forwarding.events()) == (b"THROUGH A FILE", ["Connected", "PeerEnded"])
    listening.close()
    await listening.wait_closed()
    for gone, reason in ((path, Reason.SOCKET_NOT_FOUND), (str(tmp_path / "plain"), Reason.CONNECTION_REFUSED)):
        if reason is Reason.CONNECTION_REFUSED:
            Path(gone).touch()
        else:
            Path(gone).unlink(missing_ok=True)
        with pytest.raises(GuestError, match=gone) as caught:
            async with channel.forward(ForwardSpec(GuestSocket(gone))):
                pass
        assert caught.value.reason is reason


async def test_connections_do_not_wait_for_each_other(channel: GuestChannel) -> None:
    accepted: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        writer.write(await reader.read())
        writer.close()

    listening = await asyncio.start_server(hold, "127.0.0.1", 0)
    spec = ForwardSpec(GuestPort(listening.sockets[0].getsockname()[1]))

    async def one(number: int, together: asyncio.Barrier) -> None:
        async with channel.forward(spec) as forwarding:
            await forwarding.say(Input(b"%d" % number))
            await together.wait()
            await end(forwarding, b"%d" % number)

    async def end(forwarding: Conversation[ForwardEvent], expected: bytes) -> None:
        await forwarding.say(InputEnd())
        assert (await all_of(forwarding.events()))[0] == expected

    together = asyncio.Barrier(100)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for number in range(100):
            tasks.create_task(one(number, together))
    assert len(accepted) == 100
    listening.close()


def request(**fields: object) -> bytes:
    message = agent_pb2.Request(forward=agent_pb2.ForwardRequest(**fields))  # type: ignore[arg-type]
    return frame(REQUEST, message.SerializeToString())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param(request(), "needs a target", id="no target"),
        pytest.param(request(tcp=agent_pb2.TcpTarget()), "port 0", id="port 0"),
        pytest.param(request(tcp=agent_pb2.TcpTarget(port=65536)), "port 65536", id="port 65536"),
        pytest.param(request(unix_path="relative"), "absolute", id="relative path"),
        pytest.param(request(unix_path="/" + "x" * 107), "107", id="path too long"),
    ],
)
async def test_a_bad_target_is_refused(agent: Agent, said: bytes, words: str) -> None:
    error = refusal(await talk(agent, hello() + said))
    assert error.code == agent_pb2.ERROR_CODE_BAD_REQUEST
    assert words in error.message


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(frame(DATA, b"x"), id="DATA"),
        pytest.param(frame(99), id="an unknown type"),
        pytest.param(frame(STDIN, bytes(256 * 1024 + 1)), id="more than the window"),
    ],
)
async def test_a_caller_that_breaks_the_protocol_is_told_and_the_connection_broken(agent: Agent, said: bytes) -> None:
    async def expect_a_reset(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        with pytest.raises(ConnectionResetError):
            await reader.read()

    async with server(expect_a_reset) as target:
        answer = await talk(agent, hello() + request(tcp=agent_pb2.TcpTarget(port=target.port)) + said)
        assert refusal(answer).code == agent_pb2.ERROR_CODE_BAD_REQUEST


async def test_the_frames_are_those_of_the_table(agent: Agent) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())

    async with server(echo) as target:
        said = hello() + request(tcp=agent_pb2.TcpTarget(port=target.port)) + frame(STDIN, b"x") + frame(STDIN_EOF)
        answer = await talk(agent, said)
    assert kinds(answer)[1:] == [CONNECTED, DATA, DATA_END, RESPONSE]
    assert ERROR not in kinds(answer)
