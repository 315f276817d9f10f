"""What SQLite says, told as errors of ours: which file it is about, and what to do."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingle.api_server.model.errors import HostProblem, IngleError, Reason
from ingle.api_server.model.exhaustion import exhaustion

_FULL = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
_DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
_REFUSED = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")


def translated(error: sqlite3.Error, path: Path) -> IngleError:
    """What `error` means for who uses the database at `path`."""
    name = getattr(error, "sqlite_errorname", None) or ""  # Python's own errors have none
    if name in _FULL:
        return HostProblem(Reason.DISK_FULL, f"no space to write {path}", f"free some space on {path.parent}")
    if name.startswith(_REFUSED) and (problem := refusal(path)) is not None:
        return problem
    if name in _DAMAGED or name.startswith("SQLITE_CORRUPT_"):
        return damaged(path, str(error))
    return HostProblem(Reason.INTERNAL, f"database {path}: {error}", "ingle doctor")


def damaged(path: Path, how: str) -> HostProblem:
    """It holds something else than it should. The log beside it would go into whatever takes its place."""
    remedy = f"ingle server stop; then move {path}* away, or restore it"
    return HostProblem(Reason.INTERNAL, f"database {path}: {how}", remedy)


def refusal(path: Path) -> HostProblem | None:
    """Why the file can't be opened to be written, where the system has a reason; SQLite says only that it is so.

    It is not tried: closing a file takes all locks with it that this process has on it, SQLite's too."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return exhaustion(error)
    needed = path if path.exists() else path.parent
    if os.access(needed, os.R_OK | os.W_OK):
        return None
    problem = f"database {path}: uid {os.getuid()} may not write {needed}"
    return HostProblem(Reason.INTERNAL, problem, f"ls -ld {needed}; findmnt -T {needed}")


def telling(path: Path) -> type[sqlite3.Connection]:
    """Connections to `path` for those who only read, whose failures are errors of ours from the start."""

    @contextmanager
    def told() -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise translated(error, path) from error

    class Cursor(sqlite3.Cursor):
        def fetchone(self) -> Any:
            with told():
                return super().fetchone()

        def fetchall(self) -> list[Any]:
            with told():
                return super().fetchall()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            with told():
                return self.cursor(Cursor).execute(sql, parameters)

    return Connection
