"""One server a state directory, one a socket: an flock that dies with its holder.

The file says who that is, for people and for the command line: its first line is the holder's pid, its second where it
listens.
"""

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from ingle.api_server.model.errors import Conflict, HostProblem, Reason

_LONGEST = 4096


class Lock:
    """An exclusive lock on a file. Held until `release`, or the end of the process."""

    def __init__(self, path: Path, what: str, socket: Path) -> None:
        """Take it. Raises Conflict(IN_USE) when another process has it, HostProblem for what is no file of ours."""
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise HostProblem(Reason.INTERNAL, f"{path}: {error.strerror}", f"remove {path}") from error
        try:
            status = os.fstat(self._file)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
                raise HostProblem(Reason.INTERNAL, f"{path} is no file of uid {os.getuid()}", f"remove {path}")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, _, rest = os.pread(self._file, _LONGEST, 0).decode(errors="replace").partition("\n")
                where = rest.partition("\n")[0]
                listens = f", and listens on {where}" if where else ""
                raise Conflict(
                    Reason.IN_USE,
                    f"another ingle server (pid {pid or 'unknown'}) uses {what}{listens}",
                    f"INGLE_SOCKET={where} ingle server status" if where else "ingle server status",
                ) from None
            with suppress(OSError):  # a full disk, say: it is a lock all the same
                said = f"{os.getpid()}\n{socket}\n".encode()
                os.pwrite(self._file, said, 0)
                os.ftruncate(self._file, len(said))
        except BaseException:
            os.close(self._file)
            raise

    @property
    def lost(self) -> bool:
        """Whether the file was taken away, so that another may hold one of that name."""
        try:
            return not os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except OSError:
            return True

    @property
    def replaced(self) -> bool:
        """Whether the file is known to be gone, or another. One that can't be looked at may be there still."""
        try:
            return not os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False

    def release(self) -> None:
        """Let it go. The file stays: removing it would let two holders in."""
        os.close(self._file)
