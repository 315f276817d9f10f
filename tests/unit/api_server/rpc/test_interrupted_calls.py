"""A server that stops ends calls which would never end, and tells each caller: real gRPC on a socket."""

import asyncio
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness import refusal
from ingle.api_server.gate import Callers, open_gate
from ingle.api_server.rpc.interceptors import CallInterceptor

LEFT = import_module("grpc._cython.cygrpc").ExecuteBatchError
"""What gRPC raises where an answer finds nobody."""

METHOD = "/ingle.v1.GuestService/AttachSession"
FLOOD = bytes(256 * 1024)
SECONDS = 20


class Endless(grpc.GenericRpcHandler):
    """One method, that answers without end, as fast as somebody takes it or not at all."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self.begun = asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        return grpc.unary_stream_rpc_method_handler(self._answer, request_deserializer=bytes)

    async def _answer(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        self.begun.set()
        while True:
            if self._silent:
                await asyncio.Event().wait()
            yield FLOOD


@pytest.mark.parametrize("silent", [True, False], ids=["waiting", "in the middle of output that nobody takes"])
async def test_a_call_that_is_interrupted_is_told_whatever_it_is_doing(tmp_path: Path, silent: bool) -> None:
    interceptor, handler = CallInterceptor(), Endless(silent)
    server = grpc.aio.server(interceptors=[interceptor])
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{tmp_path}/grpc.sock")
    await server.start()
    gate = await open_gate(tmp_path / "api.sock", tmp_path / "grpc.sock", Callers(os.getuid()))
    try:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/api.sock") as channel:
            method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(METHOD)
            call = method(b"")
            await asyncio.wait_for(handler.begun.wait(), SECONDS)
            await asyncio.sleep(0.2)  # until no more goes out
            interceptor.calls.end_endless()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await asyncio.wait_for(_taken(call), SECONDS)
        assert refusal(raised.value).reason == "SERVER_STOPPING"
        assert await interceptor.calls.ended(SECONDS)
    finally:
        gate.close()
        await server.stop(0)


async def _taken(call: AsyncIterable[bytes]) -> None:
    async for _ in call:
        pass


class Left(grpc.GenericRpcHandler):
    """One method, whose caller has gone by the time that it is answered: what gRPC raises then, or else by luck."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        return grpc.unary_stream_rpc_method_handler(self._answer, request_deserializer=bytes)

    async def _answer(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        yield b""
        raise LEFT('Failed "execute_batch"')


async def test_an_answer_that_finds_nobody_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    interceptor = CallInterceptor()
    server = grpc.aio.server(interceptors=[interceptor])
    server.add_generic_rpc_handlers((Left(),))
    server.add_insecure_port(f"unix:{tmp_path}/grpc.sock")
    await server.start()
    gate = await open_gate(tmp_path / "api.sock", tmp_path / "grpc.sock", Callers(os.getuid()))
    try:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/api.sock") as channel:
            method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(METHOD)
            with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                await asyncio.wait_for(_taken(method(b"", timeout=1)), SECONDS)
        assert await interceptor.calls.ended(SECONDS)
    finally:
        gate.close()
        await server.stop(0)
    assert "call left by its caller" in [record.getMessage() for record in caplog.records]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
