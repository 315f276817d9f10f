"""One server a state directory, one a socket: an flock that dies with its holder."""

import fcntl
import os
from pathlib import Path

from ingle.api_server.model.errors import Conflict, Reason


class Lock:
    """An exclusive lock on a file. Held until `release`, or the end of the process."""

    def __init__(self, path: Path, what: str) -> None:
        """Take it. Raises Conflict(IN_USE) when another process has it."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise Conflict(
                Reason.IN_USE, f"another ingle server (pid {holder}) uses {what}", "ingle server status"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let it go. The file stays: removing it would let two holders in."""
        os.close(self._file)
