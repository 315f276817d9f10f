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

from harness import refusal
from ingle.api_server import grpc_server
from ingle.api_server.gate import Callers, Gate, open_gate
from ingle.api_server.grpc_server import GrpcServer, GrpcServers
from ingle.api_server.model.caller import Caller
from ingle.api_server.model.errors import Conflict, HostProblem, Reason
from ingle.api_server.rpc import calls, who
from ingle.api_server.rpc.calls import Calls
from ingle.api_server.rpc.interceptors import CallInterceptor
from ingle.api_server.rpc.standard import Health, add_health
from unit.api_server.calling import BREAKING, calling


@dataclass
class Place:
    """A server behind its gate."""

    public: Path
    gate: Gate
    server: GrpcServer
    calls: Calls

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

        interceptor = CallInterceptor()
        server = GrpcServer(
            f"{root}/up.sock",
            register,
            lambda: gates[0].hang_up(),  # noqa: PLW0108 - it comes later
            interceptor,
        )
        await server.start()
        gates.append(await open_gate(root / "api.sock", root / "up.sock", Callers(os.getuid())))
        yield Place(root / "api.sock", gates[0], server, interceptor.calls)
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
            assert await place.calls.ended(30)
            while place.server._ending:
                await asyncio.sleep(0.01)
    await _check(place.public)


async def test_callers_are_answered_after_each_server_that_breaks(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_LOOK_SECONDS", 0.02)
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


async def test_one_user_has_so_many_calls_and_each_that_ends_makes_room(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MOST_OF_ONE_USER", 3)
    async with grpc.aio.insecure_channel(f"unix:{place.public}") as channel:
        held = [_health(channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(3)]
        for each in held:
            await each.read()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _health(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        told = refusal(raised.value)
        assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
        assert f"user {os.getuid()} has 3 calls under way" in told.message
        for each in held:
            each.cancel()
        assert await place.calls.ended(30)
        await _check(place.public)


@pytest.fixture
async def servers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[GrpcServers, list[int]]]:
    """Without a gate; and whom it was asked to hang up on."""
    monkeypatch.setattr(who, "identity_of", lambda peer: (Caller(1), 1))
    hung_up: list[int] = []
    with tempfile.TemporaryDirectory(prefix="ingle-t-") as name:
        servers = GrpcServers(name, lambda server: add_health((), server), hung_up.append)
        yield servers, hung_up
        await servers.stop(0)


async def test_who_breaks_the_server_breaks_nobody_elses(servers: tuple[GrpcServers, list[int]]) -> None:
    all_of_them, hung_up = servers
    mine, theirs = await asyncio.gather(all_of_them.of(1), all_of_them.of(2))
    assert await all_of_them.of(1) == mine
    async with grpc.aio.insecure_channel(f"unix:{mine}") as channel:
        watching = _health(channel).Watch(health_pb2.HealthCheckRequest())
        await watching.read()
        _, writer = await asyncio.open_unix_connection(theirs)
        writer.write(calling(BREAKING).data_to_send())
        async with asyncio.timeout(30):
            while not hung_up:
                await asyncio.sleep(0.01)
        writer.close()
        assert hung_up == [2]
        await _check(Path(mine))
        assert not watching.done()


async def test_a_server_that_could_not_start_is_tried_again(servers: tuple[GrpcServers, list[int]]) -> None:
    all_of_them, _ = servers
    in_the_way = Path(await all_of_them.of(1)).with_name("2.sock")
    (in_the_way / "full").mkdir(parents=True)
    with pytest.raises(HostProblem):
        await all_of_them.of(2)
    (in_the_way / "full").rmdir()
    in_the_way.rmdir()
    await _check(Path(await all_of_them.of(2)))


async def test_servers_that_stop_take_nobody_new(servers: tuple[GrpcServers, list[int]]) -> None:
    all_of_them, _ = servers
    await all_of_them.of(1)
    await all_of_them.refuse(0)
    with pytest.raises(Conflict) as refused:
        await all_of_them.of(2)
    assert refused.value.reason is Reason.SERVER_STOPPING
