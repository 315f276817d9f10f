"""A stand-in for ingle's server: what it says is up to the test, and how is the real one's."""

import asyncio
import os
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

import grpc
from google.protobuf.message import Message

from ingle.api_server.application import SERVICES
from ingle.api_server.gate import Callers, open_gate
from ingle.api_server.grpc_server import GrpcServer
from ingle.api_server.rpc.interceptors import CallInterceptor
from ingle.api_server.rpc.standard import Health, add_health, add_reflection
from ingle.testing.script import Call, Script, Told


class StandIn:
    """Listens at `socket` for the time of a `with`, in a thread of its own.

    Metadata, errors with their details, health and reflection are the real server's: the same code says them."""

    def __init__(self) -> None:
        self._script = Script()
        self._directory = tempfile.TemporaryDirectory(prefix="ingle-")
        self.socket = Path(self._directory.name) / "api.sock"
        self._listens: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, name="ingle.testing.StandIn", daemon=True)

    @property
    def calls(self) -> list[Call]:
        """What came, in order."""
        return list(self._script.calls)

    def answer(self, method: str, *answers: Told) -> None:
        """What calls of `method`, such as "VmService.GetVm", are answered from now on: each takes the next one of
        `answers`, and the last one stays.

        An answer is a message, a `Refusal` or `SILENCE`; for a stream, a sequence of these; or a function that makes
        one of the call's first request. Streams are answered when that is there, others when the request is complete.

        Raises ValueError for a method that the contract does not have, and for messages that it never says."""
        self._script.tell(method, answers)

    def requests(self, method: str) -> list[Message]:
        """What was asked in all calls of `method`."""
        return [request for call in self._script.calls if call.method == method for request in call.requests]

    def __enter__(self) -> "StandIn":
        self._thread.start()
        self._listens.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, ending = self._listens.result()
        loop.call_soon_threadsafe(ending.set)
        self._thread.join()
        self._directory.cleanup()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._listens.done():
                raise
            self._listens.set_exception(error)

    async def _serve(self) -> None:
        ending = asyncio.Event()
        upstream = self.socket.with_name("grpc.sock")
        gate = await open_gate(self.socket, upstream, Callers(os.getuid()))
        server = GrpcServer(str(upstream), self._register, gate.hang_up, CallInterceptor())
        await server.start()
        self._listens.set_result((asyncio.get_running_loop(), ending))
        await ending.wait()
        gate.close()
        await server.refuse(0)
        gate.hang_up()

    def _register(self, server: grpc.aio.Server) -> Health:
        server.add_generic_rpc_handlers((self._script,))
        add_reflection(SERVICES, server)
        return add_health(SERVICES, server)
