"""Connections from the host's loopback to a VM."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from ingle.api_server.host.relay import Relay
from ingle.api_server.host.shares import Shares

_MUCH = 1 << 24


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """To somebody who says much, and leaves."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(_MUCH))
        await writer.drain()
        writer.close()

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    far = await asyncio.start_server(serve, "127.0.0.1", 0)

    async def ready() -> tuple[str, int]:
        host, port = far.sockets[0].getsockname()
        return host, port

    relay = Relay(listening, ready, Shares(4, 4), "vm")
    relay.start()
    yield relay
    relay.close()
    far.close()


async def _connect(relay: Relay) -> socket.socket:
    caller = socket.socket()
    caller.setblocking(False)
    await asyncio.get_running_loop().sock_connect(caller, relay._listening.getsockname())
    return caller


async def _ends(caller: socket.socket) -> None:
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(caller, 65536):
                pass


async def test_who_connects_as_the_relay_is_closed_is_not_left_behind(relay: Relay) -> None:
    with await _connect(relay) as caller:
        while not relay._connections:
            await asyncio.sleep(0)
        relay.close()  # before anything was done for it
        await _ends(caller)


async def test_who_never_reads_is_let_go_as_the_relay_is_closed(relay: Relay) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with await _connect(relay):
        await asyncio.sleep(0.5)
        assert relay._connections
        relay.close()
        async with asyncio.timeout(10):  # the caller's own is left, and the one that listened is not
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.01)


async def test_what_was_said_last_arrives(relay: Relay) -> None:
    with await _connect(relay) as caller:
        taken = 0
        async with asyncio.timeout(30):
            while data := await asyncio.get_running_loop().sock_recv(caller, 65536):
                taken += len(data)
        assert taken == _MUCH
