"""A stand-in for a virtio-serial port and the chardev behind it: a terminal that passes all bytes on as they are, and a
unix socket, of which one caller is heard at a time."""

import asyncio
import os
import random
import termios
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Port:
    """What is on its way when an end leaves is kept for whoever comes next, or lost from some byte on, as a VMM's
    buffers and a guest's kernel do it."""

    def __init__(self, socket: Path, chance: random.Random) -> None:
        self.socket = socket
        self._chance = chance
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.device = os.ttyname(slave)
        self._slave = slave  # kept open, so that the terminal never hangs up
        os.set_blocking(self._master, False)
        self._writer: asyncio.StreamWriter | None = None
        self._callers = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut_after = 1 << 62
        """Bytes that pass until `cut` is called."""
        self.cut: Callable[[], None] = lambda: None

    async def __aenter__(self) -> "Port":
        self._server = await asyncio.start_unix_server(self._call, self.socket, limit=1 << 20)
        self._out = asyncio.create_task(self._from_guest())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        self._out.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._out, *self._tasks, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        os.close(self._slave)

    def lose(self) -> None:
        """The guest's end was closed: what it has not read is gone."""
        termios.tcflush(self._slave, termios.TCIFLUSH)

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        async with self._callers:
            self._writer = writer
            try:
                while data := await reader.read(self._chance.choice((100, 5000, 65536))):
                    await self._to_guest(data)
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                self._writer = None
                writer.close()

    async def _to_guest(self, data: bytes) -> None:
        while data:
            try:
                written = os.write(self._master, data)
            except BlockingIOError:
                await self._until(asyncio.get_running_loop().add_writer, asyncio.get_running_loop().remove_writer)
                continue
            data = data[written:]
            self._passed(written)

    async def _from_guest(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._writer is None:
                await asyncio.sleep(0.001)  # a guest whose host is away waits
                continue
            try:
                data = os.read(self._master, self._chance.choice((100, 4096, 65536)))
            except BlockingIOError:
                await self._until(loop.add_reader, loop.remove_reader)
                continue
            while self._writer is None:
                await asyncio.sleep(0.001)
            with suppress(ConnectionError):
                if not self._writer.is_closing():
                    self._writer.write(data)
                self._passed(len(data))
                if self._writer is not None:
                    await self._writer.drain()

    async def _until(self, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]) -> None:
        ready = asyncio.get_running_loop().create_future()
        add(self._master, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            remove(self._master)

    def _passed(self, size: int) -> None:
        self.cut_after -= size
        if self.cut_after <= 0:
            self.cut_after = 1 << 62
            self.cut()
