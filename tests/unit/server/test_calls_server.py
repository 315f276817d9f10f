"""What a caller who breaks gRPC's server takes from others."""

import asyncio
import logging
import os
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ingle.api_server import calls_server
from ingle.api_server.calls_server import CallsServer
from ingle.api_server.gate import Callers, Gate, open_gate
from ingle.api_server.rpc.standard import Health, add_health
from unit.server.calling import BREAKING, calling


@dataclass
class Place:
    """A server behind its gate."""

    public: Path
    gate: Gate
    server: CallsServer

    async def broken(self) -> None:
        """Until another one has taken its place."""
        before = self.server._server
        _, writer = await asyncio.open_unix_connection(self.public)
        writer.write(calling(BREAKING).data_to_send())
        async with asyncio.timeout(30):
            while self.server._server is before:
                await asyncio.sleep(0.01)
        writer.close()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    gates: list[Gate] = []
    with tempfile.TemporaryDirectory(prefix="ingle-t-") as name:
        root = Path(name)

        def register(server: grpc.aio.Server) -> Health:
            return add_health((), server)

        server = CallsServer(f"{root}/up.sock", register, lambda: gates[0].hang_up())  # noqa: PLW0108 - it comes later
        await server.start()
        gates.append(await open_gate(root / "api.sock", root / "up.sock", Callers(os.getuid())))
        yield Place(root / "api.sock", gates[0], server)
        gates[0].close()
        gates[0].hang_up()
        await server.refuse(0)


def _health(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


async def _check(public: Path) -> None:
    async with grpc.aio.insecure_channel(f"unix:{public}") as channel:
        answer = await _health(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


class _Takes(logging.Handler):
    """Memory as soon as gRPC has told that it breaks, in the size of what it holds for each call."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[deque[None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.taken += (deque([None]) for _ in range(10_000))


async def test_a_server_that_breaks_overwrites_no_memory_of_others(place: Place) -> None:
    takes = _Takes()
    log = logging.getLogger("grpc._cython.cygrpc")
    log.addHandler(takes)
    try:
        for _ in range(3):
            await place.broken()
    finally:
        log.removeHandler(takes)
    assert len(takes.taken) == 30_000
    assert all(len(each) == 1 for each in takes.taken)


async def test_a_server_that_breaks_ends_its_calls(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.server, "_hang_up", lambda: None)  # also where that does not
    async with grpc.aio.insecure_channel(f"unix:{place.public}") as channel:
        watching = _health(channel).Watch(health_pb2.HealthCheckRequest())
        assert await watching.read()
        await place.broken()
        async with asyncio.timeout(30):
            with pytest.raises(grpc.aio.AioRpcError):
                await watching.read()
            assert await place.server.calls.ended(30)
            while place.server._ending:
                await asyncio.sleep(0.01)
    await _check(place.public)


async def test_callers_are_answered_after_each_server_that_breaks(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_server, "_LOOK_SECONDS", 0.02)
    await place.broken()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await place.broken()
        await _check(place.public)
    async with asyncio.timeout(30):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.01)


async def test_a_server_that_breaks_is_replaced_as_soon_as_that_is_possible(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    register, problems = place.server._register, [OSError(24, "Too many open files"), RuntimeError("Failed to bind")]

    def begin(server: grpc.aio.Server) -> Health:
        if problems:
            raise problems.pop()
        return register(server)

    monkeypatch.setattr(place.server, "_register", begin)
    await place.broken()
    async with asyncio.timeout(30):
        while problems or not Path(place.server._upstream).exists():
            await asyncio.sleep(0.01)
    await _check(place.public)
    assert sum("yet" in record.message for record in caplog.records) == 1
