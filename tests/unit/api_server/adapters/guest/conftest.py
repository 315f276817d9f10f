"""Agents that do what a real one never would."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.guest.frames import FrameType, encode
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.ports.guest import GuestChannel

HELLO_OK = encode(FrameType.HELLO_OK, agent_pb2.HelloOk(protocol_version=1).SerializeToString())

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Impostor = Callable[[Behaviour], Awaitable[UnixAddress]]


@asynccontextmanager
async def impostor_at(path: Path, behaviour: Behaviour) -> AsyncIterator[UnixAddress]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await behaviour(reader, writer)
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield UnixAddress(str(path))


@pytest.fixture
async def impostor(tmp_path: Path) -> AsyncIterator[Impostor]:
    """Something on a socket that behaves as told."""
    async with AsyncExitStack() as stack:
        yield lambda behaviour: stack.enter_async_context(impostor_at(tmp_path / "agent", behaviour))


def says(*answer: bytes) -> Behaviour:
    """An agent that says this, whatever it is asked, and hangs up."""

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        for piece in answer:
            writer.write(piece)
            await writer.drain()

    return behaviour


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


def channel(address: UnixAddress) -> GuestChannel:
    return Dialler().channel(AgentEndpoint(address))
