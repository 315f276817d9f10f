"""The host's end of a connection, against agents that do what a real one never would."""

import asyncio

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.connection import Connection
from ingle.api_server.adapters.guest.frames import Frame, FrameType, encode
from ingle.api_server.adapters.guest.mux import Lines
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import ExecSpec, Exited, Started, Stdout
from unit.api_server.adapters.guest.conftest import HELLO_OK, Impostor, channel, says, says_nothing

STARTED = encode(FrameType.STARTED, agent_pb2.ExecStarted(pid=7).SerializeToString())
EXITED = encode(FrameType.EXITED, agent_pb2.ExecExited().SerializeToString())
WINDOW = 256 * 1024


def response(message: agent_pb2.Response) -> bytes:
    return encode(FrameType.RESPONSE, message.SerializeToString())


async def test_hello_and_request_are_one_packet(impostor: Impostor) -> None:
    packets: list[bytes] = []

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packets.append(await reader.read(65536))

    with pytest.raises(GuestError):
        await channel(await impostor(behaviour)).sync()
    hello = encode(FrameType.HELLO, agent_pb2.Hello(protocol_version=1).SerializeToString())
    request = encode(FrameType.REQUEST, agent_pb2.Request(sync=agent_pb2.SyncRequest()).SerializeToString())
    assert packets == [hello + request]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HELLO_OK, id="no answer"),
        pytest.param(HELLO_OK[:-1], id="half a frame"),
        pytest.param(HELLO_OK[:3], id="half a header"),
        pytest.param(HELLO_OK[:5], id="a header"),
    ],
)
async def test_a_lost_connection_is_unreachable(impostor: Impostor, answer: bytes) -> None:
    with pytest.raises(GuestError, match="hung up") as caught:
        await channel(await impostor(says(answer))).sync()
    assert caught.value.reason is Reason.GUEST_UNREACHABLE


async def test_silence_is_unreachable_and_says_how_long(impostor: Impostor) -> None:
    with pytest.raises(GuestError, match=r"did not answer within 0\.05 s") as caught:
        await channel(await impostor(says_nothing)).ping(timeout_seconds=0.05)
    assert caught.value.reason is Reason.GUEST_UNREACHABLE


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="another protocol"),
        pytest.param(bytes(5), id="zero length"),
        pytest.param(encode(FrameType.HELLO, b""), id="what callers say"),
        pytest.param(STARTED, id="no hello"),
        pytest.param(
            encode(FrameType.HELLO_OK, agent_pb2.HelloOk(protocol_version=2).SerializeToString())
            + response(agent_pb2.Response(sync=agent_pb2.SyncResponse())),
            id="another version",
        ),
        pytest.param(HELLO_OK + HELLO_OK, id="hello twice"),
        pytest.param(HELLO_OK + STARTED, id="the answer to something else"),
        pytest.param(HELLO_OK + response(agent_pb2.Response()), id="an answer to nothing"),
        pytest.param(
            HELLO_OK + response(agent_pb2.Response(ping=agent_pb2.PingResponse())), id="an answer to another question"
        ),
        pytest.param(HELLO_OK + encode(FrameType.RESPONSE, b"\xff\xff"), id="not protobuf"),
        pytest.param(encode(FrameType.HELLO_OK, b"\xff\xff"), id="hello that isn't protobuf"),
        pytest.param(encode(FrameType.WINDOW, b"\xff\xff"), id="a window that isn't protobuf"),
        pytest.param(
            encode(FrameType.WINDOW, agent_pb2.ExecWindow(bytes=1).SerializeToString()), id="more window than there is"
        ),
        pytest.param(encode(FrameType.ERROR, b"\xff\xff"), id="an error that isn't protobuf"),
    ],
)
async def test_an_answer_without_sense_is_a_broken_protocol(impostor: Impostor, answer: bytes) -> None:
    with pytest.raises(GuestError) as caught:
        await channel(await impostor(says(answer))).sync()
    assert caught.value.reason is Reason.GUEST_PROTOCOL


@pytest.mark.parametrize("before", [b"", encode(FrameType.STDOUT, b"some output")])
async def test_an_exec_without_an_exit_is_no_success(impostor: Impostor, before: bytes) -> None:
    address = await impostor(says(HELLO_OK, STARTED, before))
    events = []
    async with channel(address).exec(ExecSpec(("true",))) as session:
        with pytest.raises(GuestError, match="hung up") as caught:  # noqa: PT012 - the loop is what fails
            async for event in session.events():
                events.append(event)  # noqa: PERF401 - what came before counts
    assert caught.value.reason is Reason.GUEST_UNREACHABLE
    assert events == [Started(7), *([Stdout(b"some output")] if before else [])]


async def test_what_comes_after_the_exit_is_not_looked_at(impostor: Impostor) -> None:
    address = await impostor(says(HELLO_OK + STARTED + EXITED + EXITED + b"garbage"))
    async with channel(address).exec(ExecSpec(("true",))) as session:
        assert [event async for event in session.events()] == [Started(7), Exited(0)]


async def test_input_stops_at_the_window_and_goes_on_with_a_grant(impostor: Impostor) -> None:
    data = bytes(range(256)) * 2048  # two windows
    received: asyncio.Queue[int] = asyncio.Queue()

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = b""
        for granted in (WINDOW, WINDOW):
            while len(got) < granted * (1 + received.qsize()):
                length = int.from_bytes(await reader.readexactly(4), "big")
                got += (await reader.readexactly(length))[1:]
            received.put_nowait(len(got))
            writer.write(encode(FrameType.WINDOW, agent_pb2.ExecWindow(bytes=granted).SerializeToString()))
        assert got == data
        writer.write(encode(FrameType.STDOUT, b"all"))
        await reader.read(-1)

    connection = await Connection.connect(await impostor(behaviour), b"", Lines())
    await connection.send_stdin(data)
    assert await connection.receive() == Frame(FrameType.STDOUT, b"all")
    assert [received.get_nowait(), received.get_nowait()] == [WINDOW, 2 * WINDOW]
    connection.close()


async def test_input_waits_for_a_window_without_end_until_the_connection_ends(impostor: Impostor) -> None:
    connection = await Connection.connect(await impostor(says_nothing), b"", Lines())
    writing = asyncio.create_task(connection.send_stdin(bytes(WINDOW + 1)))
    await asyncio.sleep(0.02)
    assert not writing.done()
    connection.close()
    await writing


async def test_two_writers_never_mix_their_frames(impostor: Impostor) -> None:
    each = 1000
    received: list[bytes] = []

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(received) < 2 * each:
            length = int.from_bytes(await reader.readexactly(4), "big")
            received.append((await reader.readexactly(length))[1:])
            grant = agent_pb2.ExecWindow(bytes=length - 1)
            writer.write(encode(FrameType.WINDOW, grant.SerializeToString()))
        writer.write(encode(FrameType.STDOUT, b"all"))
        await reader.read(-1)

    async def write(connection: Connection, content: bytes) -> None:
        for number in range(each):
            await connection.send_stdin(content * number + b"!")
            await asyncio.sleep(0)

    connection = await Connection.connect(await impostor(behaviour), b"", Lines())
    async with asyncio.TaskGroup() as tasks:
        for content in (b"a", b"b"):
            tasks.create_task(write(connection, content))
    assert await connection.receive() == Frame(FrameType.STDOUT, b"all")
    for content in (b"a", b"b"):
        theirs = [frame for frame in received if frame.startswith(content)]
        assert theirs == [content * number + b"!" for number in range(1, each)]
    connection.close()


async def test_what_nobody_takes_is_not_read(impostor: Impostor) -> None:
    sent = 0
    chunk, chunks = encode(FrameType.STDOUT, bytes(65536)), 500

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(chunks):
            writer.write(chunk)
            await writer.drain()
            sent += 1

    connection = await Connection.connect(await impostor(behaviour), b"", Lines())
    await connection.receive()
    await asyncio.sleep(0.1)
    assert sent < chunks / 2
    for _ in range(chunks - 1):
        await connection.receive()
    assert sent == chunks
    connection.close()


async def test_a_flood_of_empty_frames_is_bounded_too(impostor: Impostor) -> None:
    sent = 0
    flood = encode(FrameType.ENTRIES) * 10_000

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(flood)
            await writer.drain()
            sent += 1

    connection = await Connection.connect(await impostor(behaviour), b"", Lines())
    await connection.receive()
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.05)
    connection.close()


async def test_a_cancelled_question_hangs_up(impostor: Impostor) -> None:
    left = asyncio.Event()

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        left.set()

    question = asyncio.create_task(channel(await impostor(behaviour)).ping(60))
    await asyncio.sleep(0.02)
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    await left.wait()
