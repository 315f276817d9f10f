"""Guests that do with a serial port what no agent would: it ends their session, and keeps nobody waiting."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest.mux import Lines
from ingle.api_server.adapters.guest.mux.wire import (
    FILLER,
    MARK_SIZE,
    WINDOW,
    PacketType,
    RecordKind,
    encode,
    record,
)

GUEST = b"g" * MARK_SIZE
KNOCK = record(RecordKind.KNOCK, bytes(MARK_SIZE))
Says = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


async def more_than_a_window(mark: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(encode(PacketType.DATA, 1, bytes(WINDOW // 4), mark) * 5)


async def more_credit_than_there_is(mark: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(encode(PacketType.CREDIT, 1, (1).to_bytes(4, "big"), mark) * (WINDOW + 1))


async def no_credit(mark: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(encode(PacketType.CREDIT, 1, bytes(4), mark))


async def garbage_without_end(mark: bytes, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"garbage" * 10_000)
        await writer.drain()


async def knocks_without_end(mark: bytes, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(KNOCK)
        await writer.drain()


@pytest.mark.parametrize(
    "says", [more_than_a_window, more_credit_than_there_is, no_credit, garbage_without_end, knocks_without_end]
)
async def test_it_ends_its_own_session_and_others_have_their_turn(tmp_path: Path, says: Says) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(len(FILLER))
            mark = (await reader.readexactly(40))[20 : 20 + MARK_SIZE]
            writer.write(record(RecordKind.WELCOME, mark, GUEST))
            await reader.readexactly(1)  # of a stream that was opened
            await says(mark, writer)
            await reader.read(-1)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    lines, path = Lines(), str(tmp_path / "agent.sock")
    async with await asyncio.start_unix_server(serve, path), asyncio.timeout(20):
        stream = await lines.stream(path)
        stream.write(b"hello")
        while not stream.is_closing():
            await asyncio.sleep(0.001)
        lines.close()
