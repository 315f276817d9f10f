"""Ingle's own agent as a way into the lab, for callers that are not asynchronous."""

import asyncio
import io
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.errors import GuestError
from ingle.api_server.model.guest import AgentEndpoint, ExecSpec, Exited, Stderr, Stdout, UnixAddress
from ingle.api_server.ports.guest import GuestChannel

Take = Callable[[bytes], None]
_Answer = TypeVar("_Answer")
_CHUNK = 1 << 18


class Guest:
    """The agent at a TCP port, which is for us what it is in the lab: a unix socket. Calls may come from any thread."""

    def __init__(self, host: str, port: int, token: bytes) -> None:
        self._host, self._port = host, port
        self._directory = tempfile.TemporaryDirectory(prefix="ingle-lab-")
        path = f"{self._directory.name}/agent.sock"
        self._endpoint = AgentEndpoint(UnixAddress(path), token)
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, daemon=True).start()
        self._server = self._do(asyncio.start_unix_server(self._relay, path, limit=_CHUNK))

    def answers(self) -> bool:
        """Whether the agent is up."""
        try:
            self._do(self._channel.ping(2.0))
        except GuestError:
            return False
        return True

    def start(self, *argv: str, env: dict[str, str] | None = None, stdout: Take, stderr: Take) -> "Future[int]":
        """Run a command; the answer is its exit code. `stdout` and `stderr` are called from another thread."""
        return asyncio.run_coroutine_threadsafe(self._exec(ExecSpec(argv, env=env or {}), stdout, stderr), self._loop)

    def run(self, *argv: str) -> str:
        """Run a command to its end and answer its stdout. Raises RuntimeError with its stderr when it fails."""
        out, err = bytearray(), bytearray()
        code = self.start(*argv, stdout=out.extend, stderr=err.extend).result()
        if code != 0:
            raise RuntimeError(f"{' '.join(argv)}: exit code {code}\n{(out + err).decode(errors='replace')}")
        return out.decode(errors="replace")

    def copy_in(self, archive: bytes, path: str) -> None:
        """Unpack a tar archive in a directory of the guest."""

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(archive), _CHUNK):
                yield archive[at : at + _CHUNK]

        self._do(self._channel.files.copy_in(path, chunks()))

    def copy_out(self, path: str, into: Path) -> None:
        """Take a directory of the guest."""

        async def copy() -> bytes:
            stream = self._channel.files.copy_out(path)
            return b"".join([chunk async for chunk in stream if isinstance(chunk, bytes)])

        with tarfile.open(fileobj=io.BytesIO(self._do(copy()))) as archive:
            archive.extractall(into, filter="data")

    @property
    def _channel(self) -> GuestChannel:
        return Dialler().channel(self._endpoint)

    def _do(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port, limit=_CHUNK)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))

    async def _exec(self, spec: ExecSpec, stdout: Take, stderr: Take) -> int:
        async with self._channel.exec(spec) as session:
            async for event in session.events():
                match event:
                    case Stdout(data):
                        stdout(data)
                    case Stderr(data):
                        stderr(data)
                    case Exited():
                        return event.exit_code
                    case _:
                        pass
        raise AssertionError("the stream ended without an exit")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction; who is not heard any more is not listened to either."""
    try:
        while piece := await reader.read(_CHUNK):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
