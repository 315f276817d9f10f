"""Many streams on one line, whose ends come and go at any byte."""

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentEndpoint, Input, InputEnd, SerialAddress
from ingle.api_server.model.guest_files import ReadSpec, WriteSpec
from ingle.api_server.model.guest_network import ForwardSpec, GuestSocket, Received
from ingle.api_server.ports.guest import GuestChannel

from .port import Port

CUTS = 1000
LARGEST = 100_000


class Line:
    """An agent at a port, and the way to it; both can be had anew."""

    def __init__(self, binary: Path, port: Port, chance: random.Random) -> None:
        self._argv = [str(binary), "--listen", f"device:{port.device}"]
        self._port = port
        self._chance = chance
        self._replacing: asyncio.Task[None] | None = None
        self.dialler = Dialler()
        self.cuts = 0
        self._begin()

    @property
    def channel(self) -> GuestChannel:
        return self.dialler.channel(AgentEndpoint(SerialAddress(str(self._port.socket))))

    def cut_after(self, size: int) -> None:
        """Kill either end once so many bytes have passed."""
        kill = self._kill_agent if self._chance.random() < 0.3 else self.dialler.close
        self._port.cut_after, self._port.cut = size, lambda: self._cut(kill)

    async def whole(self) -> None:
        """Both ends are there: nobody knows of an agent that comes until it has knocked."""
        self._port.cut_after = 1 << 62
        if self._replacing is not None:
            await self._replacing
            self._replacing = None
            with suppress(GuestError):
                await self.channel.ping()

    def close(self) -> None:
        self.dialler.close()
        self._agent.kill()
        self._agent.wait()

    def _cut(self, kill: Callable[[], None]) -> None:
        self.cuts += 1
        kill()

    def _kill_agent(self) -> None:
        self._replacing = asyncio.create_task(self._replace())

    async def _replace(self) -> None:
        self._agent.kill()
        await asyncio.to_thread(self._agent.wait)
        if self._chance.random() < 0.8:
            self._port.lose()
        self._begin()

    def _begin(self) -> None:
        self._agent = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@pytest.fixture
async def line(agent_binary: Path, tmp_path: Path) -> AsyncIterator[Line]:
    chance = random.Random(0)
    async with Port(tmp_path / "port.sock", chance) as port:
        line = Line(agent_binary, port, chance)
        try:
            yield line
        finally:
            await line.whole()
            line.close()


def text(seed: int) -> bytes:
    """Of its own at each place, so that no byte of another stream, or another place, passes for the right one."""
    chance = random.Random(seed)
    return chance.randbytes(chance.randrange(1, LARGEST))


class Echo:
    """A server in the guest."""

    def __init__(self) -> None:
        self.sent: dict[bytes, bytes] = {}
        self.wrong: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = b""
        try:
            while piece := await reader.read(65536):
                heard += piece
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
        if len(heard) >= 8 and not self.sent.get(heard[:8], b"").startswith(heard):
            self.wrong.append(heard)


async def echoed(channel: GuestChannel, path: str, echo: Echo, seed: int) -> None:
    """Returns when all came back; whatever comes is the beginning of what was sent."""
    data = text(seed).ljust(8, b"x")
    echo.sent[data[:8]] = data
    got = b""
    async with channel.forward(ForwardSpec(GuestSocket(path))) as conversation:

        async def say() -> None:
            await conversation.say(Input(data))
            await conversation.say(InputEnd())

        saying = asyncio.create_task(say())
        try:
            async for event in conversation.events():
                if isinstance(event, Received):
                    got += event.data
                    assert data.startswith(got)
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)
    assert got == data


async def kept(channel: GuestChannel, directory: Path, seed: int) -> None:
    """Returns when the file is there and came back."""
    data, path = text(seed), str(directory / str(seed))

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    await channel.files.write(WriteSpec(path), pieces())
    read = [piece async for piece in channel.files.read(ReadSpec(path)) if isinstance(piece, bytes)]
    assert b"".join(read) == data


async def test_a_thousand_cuts_lose_what_was_under_way_and_change_no_byte(line: Line, tmp_path: Path) -> None:
    echo, path, chance = Echo(), str(tmp_path / "echo.sock"), random.Random(1)
    seeds, files = iter(range(1 << 62)), tmp_path / "files"
    files.mkdir()
    server = await asyncio.start_unix_server(echo.serve, path)
    async with server, asyncio.timeout(300):
        while line.cuts < CUTS:
            line.cut_after(chance.randrange(1, 300_000))
            work = [echoed(line.channel, path, echo, next(seeds)) for _ in range(3)]
            work.append(kept(line.channel, files, next(seeds)))
            for outcome in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(outcome, BaseException) and not (
                    isinstance(outcome, GuestError) and outcome.reason is Reason.GUEST_UNREACHABLE
                ):
                    raise outcome
            await line.whole()
            await echoed(line.channel, path, echo, next(seeds))
    assert not echo.wrong
    written = [path for path in files.iterdir() if path.name.isdecimal()]  # by an upload whose end came through
    assert written
    assert all(path.read_bytes() == text(int(path.name)) for path in written)
