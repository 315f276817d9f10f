"""Servers as `ingle.testing.serve` has them, SIGKILLed by themselves right behind a transaction: once the file $KILL_AT
is there, behind the one of that number from then on, 0 being the first. Each is forked from a process with all modules
loaded, since a test starts hundreds. $BOOTED_AT, in ISO 8601, is when the host has started for it.

python -m contract.killing_server: stdin is a socket. [variables, arguments] as JSON, with a file for what the server
says, is answered by its pid, and that pid, once it has ended, by its exit code. The end of stdin ends all.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Never

from ingle.api_server import main
from ingle.api_server.adapters.clock import HostClock
from ingle.api_server.adapters.sqlite.database import Database
from ingle.testing import serve

_MOST_BYTES = 1 << 17
_transaction = Database.transaction


@asynccontextmanager
async def _deadly(self: Database) -> AsyncIterator[Any]:
    async with _transaction(self) as db:
        yield db
    _count_down(Path(os.environ["KILL_AT"]))


def _count_down(path: Path) -> None:
    """The file is never made anew: who has made it may have taken it away."""
    with suppress(FileNotFoundError), path.open("r+") as at:
        number = int(at.read())
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        at.seek(0)
        at.truncate()
        at.write(str(number - 1))


def run(variables: Mapping[str, str], argv: Sequence[str], log: int) -> Never:
    """A server, in the process that was forked for it."""
    code = 70
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(variables)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        sys.argv = ["killing_server", *argv]
        Database.transaction = _deadly  # type: ignore[method-assign]
        if booted_at := variables.get("BOOTED_AT"):
            setattr(HostClock, "booted_at", lambda _: datetime.fromisoformat(booted_at))  # noqa: B010 - mypy knows it
        code = main.main(argv[1:], engines=serve.engines)
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait_for_orders(asker: socket.socket) -> None:
    """Until nobody is there any more."""
    while True:
        data, files, _, _ = socket.recv_fds(asker, _MOST_BYTES, 1)
        if not data:
            return
        asked = json.loads(data)
        if isinstance(asked, int):
            asker.send(str(os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1])).encode())
            continue
        (log,) = files
        pid = os.fork()
        if pid == 0:
            asker.close()
            variables, argv = asked
            run(variables, argv, log)
        os.close(log)
        asker.send(str(pid).encode())


if __name__ == "__main__":
    wait_for_orders(socket.socket(fileno=os.dup(0)))
