"""A long-lived process in namespaces of its own, made by bubblewrap (bwrap(1)).

Bubblewrap stays, as the process's keeper and our child, and ends with it; all that is kept in mind and written down of
such a process is its own, as the host sees it. It is number one in its namespace of processes, so of the signals that
it has no handler for only SIGKILL and SIGSTOP reach it, see pid_namespaces(7).
"""

import asyncio
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ingle.api_server.host.descriptors import lower_limit
from ingle.api_server.host.process import Process, parent_of, start_time_of

PROGRAM = "bwrap"

_CHILD = re.compile(rb'"child-pid": (\d+)')
_SIGNALLED = 128  # and the signal's number is what bubblewrap exits with
_ENDINGS = frozenset({*range(1, 16), signal.SIGSYS})
"""Signals that end processes here. What Firecracker exits with by itself are other numbers above 128."""


class CagedProcess(Process):
    """Gone when both are."""

    def __init__(self, pid: int, start_time: int, pidfd: int, keeper: Process) -> None:
        super().__init__(pid, start_time, pidfd, None)
        self._keeper = keeper

    @property
    def exit_code(self) -> int | None:
        code = self._keeper.exit_code
        if code is None or code < 0:  # somebody has killed the keeper: nobody knows
            return None
        return _SIGNALLED - code if code - _SIGNALLED in _ENDINGS else code

    @property
    def gone(self) -> bool:
        return super().gone and self._keeper.gone

    async def wait(self, timeout_seconds: float | None = None) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await super().wait() and await self._keeper.wait()
        except TimeoutError:
            return False

    def close(self) -> None:
        super().close()
        self._keeper.close()


async def spawn_caged(
    cage: Sequence[str],
    argv: Sequence[str],
    *,
    stderr: Path,
    stdout: Path | None = None,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Process:
    """As Process.spawn, but for the directory: `cage` is bubblewrap with options that say what there is, `--as-pid-1`
    among them. Where that fails, it is what bubblewrap says in `stderr`, and how the answered process ends.

    Raises OSError."""
    with _pipe() as (told, tell), _pipe() as (held, let_go):
        options = ("--info-fd", str(tell.number), "--block-fd", str(held.number))
        keeper = Process.spawn(
            [*cage, *options, "--", *argv],
            directory=Path("/"),  # not where the process works, by which it is found
            stderr=stderr,
            stdout=stdout,
            pass_fds=(*pass_fds, tell.number, held.number),
            env=env,
        )
        tell.close()
        held.close()
        process = keeper
        try:
            cancelled = False
            # Not cancelled: who would end what is half made?
            reading = asyncio.ensure_future(_read(told.number))
            while not reading.done():
                try:
                    await asyncio.wait([reading])
                except asyncio.CancelledError:
                    cancelled = True
            found = _CHILD.search(reading.result())
            if found is not None:
                process = _take(int(found[1]), keeper)
            if cancelled:
                raise asyncio.CancelledError
            with suppress(BrokenPipeError):  # it has failed by now
                os.write(let_go.number, b"\n")
            return process
        except BaseException:
            process.signal(signal.SIGKILL)
            await process.wait()
            process.close()
            raise


def _take(pid: int, keeper: Process) -> Process:
    """The keeper's child. It waits for us, so its pid is nobody else's, unless it has failed by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return keeper
    started = start_time_of(pid)
    if started is None or parent_of(pid) != keeper.pid:
        os.close(pidfd)
        return keeper
    lower_limit(pid)
    return CagedProcess(pid, started, pidfd, keeper)


class _End:
    """One of a pipe's."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Again is fine."""
        if self.number >= 0:
            os.close(self.number)
        self.number = -1


@contextmanager
def _pipe() -> Iterator[tuple[_End, _End]]:
    ends = tuple(map(_End, os.pipe()))
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            end.close()


async def _read(descriptor: int) -> bytes:
    """To its end, which comes at once: whoever has the other one writes a few lines and closes it."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    said = b""
    loop.add_reader(descriptor, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            chunk = os.read(descriptor, 4096)
            if not chunk:
                return said
            said += chunk
    finally:
        loop.remove_reader(descriptor)
