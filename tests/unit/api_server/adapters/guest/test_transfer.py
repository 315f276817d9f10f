"""A connection that carries content, against agents that cut it up, stop in the middle, or say what can't be."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.frames import MAX_PAYLOAD, Frame, FrameType, encode
from ingle.api_server.adapters.guest.mux import Lines
from ingle.api_server.adapters.guest.patience import PATIENCE
from ingle.api_server.adapters.guest.transfer import Transfer
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest_files import FileInfo, ReadEnd, ReadSpec, WriteSpec
from unit.api_server.adapters.guest.conftest import HELLO_OK, Impostor, channel, says, says_nothing

KIB = 1024
FILE = agent_pb2.FileInfo(name="file", type=agent_pb2.FILE_TYPE_REGULAR)
DATA_END = encode(FrameType.DATA_END)
READ_END = encode(
    FrameType.RESPONSE,
    agent_pb2.Response(read_file=agent_pb2.ReadFileResponse(file=FILE, next_offset=7)).SerializeToString(),
)
WRITTEN = encode(
    FrameType.RESPONSE,
    agent_pb2.Response(write_file=agent_pb2.WriteFileResponse(file=FILE)).SerializeToString(),
)


async def content(transfer: Transfer) -> tuple[list[bytes], Frame]:
    """The pieces of DATA, and what comes behind them."""
    pieces = []
    while isinstance(piece := await transfer.receive_data(), bytes):
        pieces.append(piece)
    return pieces, piece


@pytest.mark.parametrize("size", [1, 4, 5, 6, 7, 100, 65536, 300_000])
async def test_the_same_comes_out_wherever_the_stream_is_cut(impostor: Impostor, size: int) -> None:
    data = os.urandom(400 * KIB if size > 100 else 300)
    frames = (encode(FrameType.DATA, data[at : at + len(data) // 3]) for at in range(0, len(data), len(data) // 3))
    stream = HELLO_OK + b"".join(frames) + READ_END

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        for at in range(0, len(stream), size):
            writer.write(stream[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read(-1)

    got = b""
    async for event in channel(await impostor(behaviour)).files.read(ReadSpec("/file")):
        if isinstance(event, ReadEnd):
            assert event.next_offset == 7
        else:
            got += event
    assert got == data


async def test_pieces_are_neither_small_nor_large(impostor: Impostor) -> None:
    sizes = [MAX_PAYLOAD, 1, 64 * KIB, MAX_PAYLOAD]

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for size in sizes:
            frame = encode(FrameType.DATA, bytes(size))
            for at in range(0, len(frame), 1000):
                writer.write(frame[at : at + 1000])
                await asyncio.sleep(0)
            await writer.drain()
        writer.write(DATA_END)
        await reader.read(-1)

    transfer = await Transfer.connect(await impostor(behaviour), b"", PATIENCE, Lines())
    pieces, end = await content(transfer)
    transfer.close()
    assert end == Frame(FrameType.DATA_END, b"")
    ends = set(itertools.accumulate(sizes))
    for piece, position in zip(pieces, itertools.accumulate(map(len, pieces)), strict=True):
        assert len(piece) <= 256 * KIB
        assert len(piece) >= 64 * KIB or position in ends
    assert sum(map(len, pieces)) == sum(sizes)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HELLO_OK, id="no answer"),
        pytest.param(HELLO_OK[:3], id="half a header"),
        pytest.param(HELLO_OK[:5], id="a header"),
        pytest.param(HELLO_OK[:-1], id="half a frame"),
        pytest.param(HELLO_OK + encode(FrameType.DATA, b"some")[:-1], id="half of the data"),
        pytest.param(HELLO_OK + encode(FrameType.DATA, bytes(100 * KIB))[:-1], id="not all data"),
        pytest.param(HELLO_OK + encode(FrameType.DATA, b"some"), id="no end"),
    ],
)
async def test_a_stream_that_ends_early_is_no_file(impostor: Impostor, stream: bytes) -> None:
    with pytest.raises(GuestError, match="hung up") as caught:
        [event async for event in channel(await impostor(says(stream))).files.read(ReadSpec("/file"))]
    assert caught.value.reason is Reason.GUEST_UNREACHABLE


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="another protocol"),
        pytest.param(bytes(5), id="zero length"),
        pytest.param(HELLO_OK + (MAX_PAYLOAD + 2).to_bytes(4, "big") + b"\x14", id="a byte more than a megabyte"),
        pytest.param(HELLO_OK + encode(FrameType.REQUEST), id="what callers say"),
        pytest.param(HELLO_OK + encode(FrameType.ENTRIES), id="what belongs elsewhere"),
        pytest.param(HELLO_OK + encode(FrameType.DATA), id="no data"),
        pytest.param(HELLO_OK + encode(FrameType.DATA_END, b"x"), id="an end with something in it"),
        pytest.param(HELLO_OK + encode(FrameType.DATA, b"some") + HELLO_OK, id="hello amid data"),
        pytest.param(READ_END, id="no hello"),
        pytest.param(HELLO_OK + WRITTEN, id="an answer to another question"),
    ],
)
async def test_what_makes_no_sense_is_a_broken_protocol(impostor: Impostor, stream: bytes) -> None:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(stream)
        await reader.read(-1)

    with pytest.raises(GuestError) as caught:
        [event async for event in channel(await impostor(behaviour)).files.read(ReadSpec("/file"))]
    assert caught.value.reason is Reason.GUEST_PROTOCOL


@pytest.mark.parametrize("size", [0, 1, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD])
@pytest.mark.parametrize("pace", [100, 1 << 20])
async def test_what_is_sent_arrives_at_any_pace_in_frames_that_are_allowed(
    impostor: Impostor, size: int, pace: int
) -> None:
    received: list[tuple[int, bytes]] = []

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO_OK)
        stream = bytearray()
        while not stream.endswith(DATA_END):
            stream += await reader.read(max(pace, len(stream) // 8))
            await asyncio.sleep(0)
        while stream:
            length = int.from_bytes(stream[:4], "big")
            received.append((stream[4], bytes(stream[5 : 4 + length])))
            del stream[: 4 + length]
        writer.write(WRITTEN)
        await reader.read(-1)

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    data = os.urandom(size)
    written = await channel(await impostor(behaviour)).files.write(WriteSpec("/file"), pieces())
    assert isinstance(written, FileInfo)
    hello, request, *frames, end = received
    assert (hello[0], request[0], end) == (FrameType.HELLO, FrameType.REQUEST, (FrameType.DATA_END, b""))
    assert {kind for kind, _ in frames} <= {FrameType.DATA}
    assert max((len(payload) for _, payload in frames), default=0) <= MAX_PAYLOAD
    assert b"".join(payload for _, payload in frames) == data


async def test_content_is_not_held_back_for_a_greeting(impostor: Impostor) -> None:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(encode(FrameType.DATA, b"content") + DATA_END)
        writer.write(HELLO_OK + WRITTEN)
        await reader.read(-1)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"content"

    await channel(await impostor(behaviour)).files.write(WriteSpec("/file"), pieces())


async def test_what_nobody_takes_is_not_read(impostor: Impostor) -> None:
    sent = 0
    chunk, chunks = encode(FrameType.DATA, bytes(65536)), 500

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(chunks):
            writer.write(chunk)
            await writer.drain()
            sent += 1
        writer.write(DATA_END)

    transfer = await Transfer.connect(await impostor(behaviour), b"", PATIENCE, Lines())
    await transfer.receive_data()
    await asyncio.sleep(0.1)
    assert sent < chunks / 2
    await content(transfer)
    assert sent == chunks
    transfer.close()


async def test_a_cancelled_read_hangs_up(impostor: Impostor) -> None:
    left = asyncio.Event()

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO_OK + encode(FrameType.DATA, b"some"))
        await reader.read(-1)
        left.set()

    async def read() -> None:
        async for _ in channel(address).files.read(ReadSpec("/file")):
            begun.set()

    begun, address = asyncio.Event(), await impostor(behaviour)
    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await left.wait()


async def test_nobody_there_is_unreachable(impostor: Impostor) -> None:
    address = await impostor(says_nothing)
    os.unlink(address.path)
    with pytest.raises(GuestError, match="No such file or directory") as caught:
        await channel(address).files.stat("/file")
    assert caught.value.reason is Reason.GUEST_UNREACHABLE
