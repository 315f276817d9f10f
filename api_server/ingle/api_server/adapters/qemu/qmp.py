"""QEMU Machine Protocol over one persistent unix socket connection.

Format: one JSON object a line; see QEMU's docs/interop/qmp-spec. Replies come in the order of the commands, events in
between.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingle.api_server.host import sockets
from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.model.exhaustion import exhaustion

_LINE_LIMIT = 4 * 1024 * 1024
_COMMAND_SECONDS = 30.0

OnEvent = Callable[[str, dict[str, Any]], None]
"""Called with an event's name and data, in the order they happened."""


class Qmp:
    """One connection. Commands may be sent by several tasks; each waits for its own reply."""

    def __init__(
        self,
        connection: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: OnEvent,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._passing = asyncio.Lock()
        self._waiting: list[asyncio.Future[Any]] = []
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def connect(cls, path: Path, on_event: OnEvent, seconds: float) -> "Qmp":
        """Connect and leave negotiation mode. Raises ToolFailed(VMM_FAILED) when nobody answers in time."""
        try:
            async with asyncio.timeout(seconds):
                connection, reader, writer = await _connected(path)
                try:
                    greeting = await reader.readline()
                    if b'"QMP"' not in greeting:
                        raise ConnectionError("no QMP greeting")
                    qmp = cls(connection, reader, writer, on_event)
                    await qmp.execute("qmp_capabilities")
                except BaseException:
                    writer.close()
                    raise
                return qmp
        except (OSError, TimeoutError) as error:
            if exhaustion(error):
                raise
            raise ToolFailed(Reason.VMM_FAILED, f"the VMM does not answer on {path}: {_why(error)}") from error

    async def execute(self, command: str, **arguments: object) -> Any:
        """Run a command and return what it returns. Raises ToolFailed(VMM_FAILED)."""
        return await self._reply(command, self._write, _line(command, arguments))

    async def pass_file(self, descriptor: int, name: str) -> None:
        """Give QEMU a file that is open here, by that name. Raises ToolFailed(VMM_FAILED)."""

        def write(line: bytes) -> None:
            try:
                sent = socket.send_fds(self._connection, [line], [descriptor])
            except OSError as error:
                raise ToolFailed(Reason.VMM_FAILED, f"QEMU can't be given a file: {error.strerror}") from error
            if rest := line[sent:]:
                self._write(rest)

        async with self._passing:  # QEMU keeps the last descriptor only, until the command behind it is read
            await self._writer.drain()  # to nothing: what goes past the writer must not overtake what is in it
            await self._reply("getfd", write, _line("getfd", {"fdname": name}))

    async def _reply(self, command: str, write: Callable[[bytes], None], line: bytes) -> Any:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._listening.done():
            raise ToolFailed(Reason.VMM_FAILED, f"QEMU's control connection is closed ({command})")
        write(line)
        self._waiting.append(reply)
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                return await reply
        except TimeoutError:
            raise ToolFailed(Reason.VMM_FAILED, f"QEMU did not answer {command} in {_COMMAND_SECONDS:.0f} s") from None

    async def ended(self, timeout_seconds: float) -> None:
        """Return when QEMU has hung up and every event it sent was told, or after that time."""
        await asyncio.wait([self._listening], timeout=timeout_seconds)

    async def close(self) -> None:
        """Hang up. QEMU goes on."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._writer.close()

    def _write(self, line: bytes) -> None:
        self._writer.write(line)

    async def _listen(self) -> None:
        problem = "QEMU closed its control connection"
        try:
            while line := await self._reader.readline():
                message = json.loads(line)
                if "event" in message:
                    self._on_event(message["event"], message.get("data", {}))
                    continue
                reply = self._waiting.pop(0)
                if reply.done():
                    continue  # its caller gave up
                if "error" in message:
                    reply.set_exception(ToolFailed(Reason.VMM_FAILED, f"QEMU: {message['error']['desc']}"))
                else:
                    reply.set_result(message["return"])
        except (OSError, ValueError, LookupError) as error:
            problem = f"QEMU's control connection broke: {_why(error)}"
        finally:
            for reply in self._waiting:
                if not reply.done():
                    reply.set_exception(ToolFailed(Reason.VMM_FAILED, problem))
            self._waiting.clear()


async def _connected(path: Path) -> tuple[socket.socket, asyncio.StreamReader, asyncio.StreamWriter]:
    """The socket as well, since no writer takes descriptors along."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)
        with sockets.short_path(path) as name:
            await asyncio.get_running_loop().sock_connect(connection, name)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LINE_LIMIT)
        writer.transport.set_write_buffer_limits(0)
    except BaseException:
        connection.close()
        raise
    return connection, reader, writer


def _line(command: str, arguments: dict[str, object]) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or "it sent what makes no sense"
