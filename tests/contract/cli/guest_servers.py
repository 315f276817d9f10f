"""Servers as a guest might have, and callers of theirs."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def guest_server(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[int]:
    listening = await asyncio.start_server(handler, host, 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def connected(place: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if "/" in place:
        return await asyncio.open_unix_connection(place)
    host, _, port = place.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


async def asked(place: str, question: bytes) -> bytes:
    """What is answered once the question has ended."""
    reader, writer = await connected(place)
    writer.write(question)
    writer.write_eof()
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


def break_off(writer: asyncio.StreamWriter) -> None:
    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read()).upper())
    writer.close()
