"""Finding and killing what a tool left behind: processes are known by a mark in their environment, never by name."""

import os
import signal
from pathlib import Path

from ingle.api_server.host.process import Process, start_time_of

STATE_VARIABLE = "INGLE_STATE"
"""Every tool has it in its environment: the state directory of the server that started it. VMMs don't."""


async def kill_leftovers(state_root: Path) -> int:
    """Kill the tools that an earlier server with this state directory left running; answers how many there were.

    For start-up, by the one server that holds the lock of `state_root`."""
    return await kill_marked(f"{STATE_VARIABLE}={state_root}")


async def kill_marked(mark: str) -> int:
    """Kill every process with `mark` (NAME=VALUE) in its environment and wait until they are gone.

    Scans again until a scan finds nothing, because what is being killed may just have forked."""
    killed = 0
    while found := _marked(mark):
        for process in found:
            process.signal(signal.SIGKILL)
        for process in found:
            await process.wait()
            process.close()
        killed += len(found)
    return killed


def _marked(mark: str) -> list[Process]:
    wanted = os.fsencode(mark)
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        started = start_time_of(int(entry))
        if started is None or wanted not in _environment(int(entry)):
            continue
        # Adopting checks the start time again: a pid that was reused meanwhile is nobody we want to kill.
        process = Process.adopt(int(entry), started)
        if process is not None:
            found.append(process)
    return found


def _environment(pid: int) -> list[bytes]:
    """As it was at exec; empty for zombies, kernel threads, and processes that are not ours to look at."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
