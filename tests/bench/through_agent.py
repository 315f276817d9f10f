"""An agent, asked through the client that the server uses itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

from bench.subject import CHUNK, FIRST_WORD, SMALL_FILE
from ingle.api_server.model.errors import GuestError
from ingle.api_server.model.guest import AttachSpec, ExecSpec, SessionProgram, Started, Stdout
from ingle.api_server.model.guest_files import ReadSpec, WriteSpec
from ingle.api_server.ports.guest import GuestChannel

SESSION = "bench"


class ThroughAgent:
    """A Subject. `durable` and `bulk` are directories in the guest: for what is written to the disk, and for what is
    large."""

    def __init__(self, runner: asyncio.Runner, channel: GuestChannel, durable: str, bulk: str) -> None:
        self._runner = runner
        self._channel = channel
        self._durable = durable
        self._bulk = bulk
        self._unpacked = ""

    def run(self) -> float:
        return self._seconds(self._true)

    def first_byte(self) -> float:
        async def measure() -> float:
            began = time.perf_counter()
            async with self._channel.exec(ExecSpec(FIRST_WORD)) as session:
                async for event in session.events():
                    if isinstance(event, Stdout):
                        break
                return time.perf_counter() - began

        return self._runner.run(measure())

    def at_once(self, count: int) -> float:
        async def all_of_them() -> None:
            await asyncio.gather(*(self._true() for _ in range(count)))

        return self._seconds(all_of_them)

    def small_file(self) -> float:
        async def measure() -> None:
            path = f"{self._durable}/small"
            await self._channel.files.write(WriteSpec(path), _pieces(SMALL_FILE))
            await self._drain(path)

        return self._seconds(measure)

    def write(self, size: int) -> float:
        return self._seconds(lambda: self._channel.files.write(WriteSpec(f"{self._bulk}/large"), _zeros(size)))

    def read(self, size: int) -> float:
        return self._seconds(lambda: self._drain(f"{self._bulk}/large"))

    def copy_in(self, archive: bytes) -> float:
        self._runner.run(self._new_directory())
        return self._seconds(lambda: self._channel.files.copy_in(self._unpacked, _pieces(archive)))

    def copy_out(self) -> float:
        async def measure() -> None:
            async for _ in self._channel.files.copy_out(self._unpacked):
                pass

        return self._seconds(measure)

    def attach(self) -> float:
        async def measure() -> float:
            began = time.perf_counter()
            async with self._channel.attach_session(AttachSpec(SESSION, steal=True)) as attachment:
                await anext(attachment.events())
                return time.perf_counter() - began

        return self._runner.run(measure())

    def create_session(self) -> None:
        """The one that `attach` attaches to."""
        self._runner.run(self._channel.create_session(SESSION, SessionProgram(("cat",))))

    def hold(self, count: int, measure: Callable[[], float]) -> float:
        """Measure something while so many commands run."""

        async def holding() -> float:
            async with asyncio.TaskGroup() as tasks:
                running, enough = asyncio.Semaphore(0), asyncio.Event()
                for _ in range(count):
                    tasks.create_task(self._sleep(running, enough))
                for _ in range(count):
                    await running.acquire()
                measured = measure()
                enough.set()
            return measured

        return self._runner.run(holding())

    async def _sleep(self, running: asyncio.Semaphore, enough: asyncio.Event) -> None:
        async with self._channel.exec(ExecSpec(("sleep", "600"))) as session:
            assert isinstance(await anext(session.events()), Started)
            running.release()
            await enough.wait()

    async def _true(self) -> None:
        async with self._channel.exec(ExecSpec(("true",))) as session:
            async for _ in session.events():
                pass

    async def _drain(self, path: str) -> None:
        async for _ in self._channel.files.read(ReadSpec(path)):
            pass

    async def _new_directory(self) -> None:
        if self._unpacked:
            await self._channel.files.remove(self._unpacked, recursive=True)
        self._unpacked = f"{self._durable}/unpacked-{uuid4().hex[:8]}"
        await self._channel.files.make_directory(self._unpacked)

    def _seconds(self, work: Callable[[], Awaitable[object]]) -> float:
        async def measure() -> float:
            began = time.perf_counter()
            await work()
            return time.perf_counter() - began

        return self._runner.run(measure())


async def until_answered(channel: GuestChannel) -> None:
    """Ask until there is an answer."""
    while True:
        try:
            await channel.ping()
        except GuestError:
            continue
        return


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), CHUNK):
        yield data[at : at + CHUNK]


async def _zeros(size: int) -> AsyncIterator[bytes]:
    zeros = bytes(CHUNK)
    for _ in range(size // CHUNK):
        yield zeros
