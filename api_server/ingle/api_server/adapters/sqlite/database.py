"""One SQLite file over aiosqlite: one connection that writes, under a lock; readers never wait for it (WAL).

Lists are read through aiosqlite's thread. One row is read at once, in the event loop: that takes five microseconds,
where the way through a thread takes a quarter of a millisecond, and every call starts with such a read.

A transaction whose caller is cancelled either happened as a whole or not at all.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import aiosqlite

from ingle.api_server.adapters.sqlite.problems import damaged, refusal, telling, translated
from ingle.api_server.adapters.sqlite.schema import MIGRATIONS
from ingle.api_server.host.reserve import Reserve, allocate
from ingle.api_server.model.caller import ROOT
from ingle.api_server.model.errors import HostProblem, Reason

_BUSY_SECONDS = 5.0
_LOG_BYTES = 4 * 1024 * 1024  # as much as is written before it goes into the database: wal_autocheckpoint's 1000 pages

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Database:
    """Use as an async context manager: entering opens, migrates and checks the file."""

    rows: sqlite3.Connection
    """For reading single rows, at once."""

    ended: Callable[[bool], None]
    """Called after each transaction: whether it was committed; if not, nobody may know."""

    def __init__(self, path: Path, heir: int = ROOT) -> None:
        """`heir` owns what is there from before things had owners."""
        self._path = path
        self._heir = heir
        self._lock = asyncio.Lock()
        self.ended = lambda committed: None
        self._reserve = Reserve(path.parent)
        self._writer: aiosqlite.Connection
        self._reader: aiosqlite.Connection

    async def __aenter__(self) -> Self:
        self._reserve.tend()
        self._writer = await _open(self._path, read_only=False)
        try:
            await self._writer.create_function("heir", 0, lambda: self._heir)
            await _migrate(self._writer, self._path)
            self._reader = await _open(self._path, read_only=True)
            self.rows = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro", uri=True, isolation_level=None, factory=telling(self._path)
            )
            self.rows.row_factory = sqlite3.Row
            # Zeros are the end of the log to SQLite. So long as it fits, a transaction needs no space on a full disk.
            allocate(self._path.with_name(f"{self._path.name}-wal"), _LOG_BYTES)
        except BaseException:
            await self._writer.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.rows.close()
        await self._reader.close()
        await self._writer.close()

    async def read(self, sql: str, *parameters: object) -> Iterable[sqlite3.Row]:
        """The rows of a list."""
        return await self._reader.execute_fetchall(sql, parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Committed when the context is left, unless by an error. Raises HostProblem(DISK_FULL) and the like."""
        async with self._lock:
            if self._reserve.tend():
                await self._settle()
            committed = False
            try:
                await self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                await self._writer.execute("COMMIT")
                committed = True
            except BaseException as error:
                # A cancelled COMMIT may have been carried out: then there is nothing to roll back, and that is right.
                await asyncio.shield(self._writer.rollback())
                if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
                    told = translated(error, self._path)
                    if told.reason is Reason.DISK_FULL and self._reserve.give_up():  # for the next try
                        await asyncio.shield(self._settle())
                    raise told from error
                raise
            finally:
                self.ended(committed)

    async def _settle(self) -> None:
        """Put what the log holds into the file, which grows by it, before somebody else has taken the room for that:
        then all of the log is free again, and that is enough for much."""
        with suppress(sqlite3.Error):  # where there is no room after all
            await self._writer.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")


def check_database(path: Path) -> str:
    """Open an existing database read-only and answer what a doctor says about it. Raises HostProblem."""
    if (problem := refusal(path)) is not None:
        raise problem
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            _check_version(version, path)
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise damaged(path, f"it can't be read: {error}") from None
    if verdict != "ok":
        raise damaged(path, f"it is damaged: {verdict}")
    return f"schema {version} of {len(MIGRATIONS)}, and whole"


def micros(time: datetime) -> int:
    """As the tables hold times. Exact: a float could not hold it."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(value: int) -> datetime:
    """The inverse of micros. Exact: a double holds microseconds until the year 2255."""
    return datetime.fromtimestamp(value / 1e6, UTC)


async def fetch_one(db: aiosqlite.Connection, sql: str, *parameters: object) -> sqlite3.Row | None:
    """The first row, in a transaction."""
    async with db.execute(sql, parameters) as cursor:
        return await cursor.fetchone()


async def insert(db: aiosqlite.Connection, table: str, columns: Mapping[str, Any], verb: str = "INSERT") -> None:
    """A row. `verb` may say what happens when it is there already."""
    names = ", ".join(columns)
    places = ", ".join(f":{name}" for name in columns)
    await db.execute(f"{verb} INTO {table} ({names}) VALUES ({places})", dict(columns))


async def update(db: aiosqlite.Connection, table: str, row_id: str, columns: Mapping[str, Any]) -> None:
    """These columns of the row with that `id`."""
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    await db.execute(f"UPDATE {table} SET {changes} WHERE id = :id", {"id": row_id, **columns})


async def _open(path: Path, *, read_only: bool) -> aiosqlite.Connection:
    uri = path.as_uri() + ("?mode=ro" if read_only else "")
    try:
        sqlite3.connect(uri, uri=True).close()  # where that fails, aiosqlite's thread lives on, and complains of it
        factory = telling(path) if read_only else sqlite3.Connection
        db = await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS, factory=factory)
    except sqlite3.Error as error:
        raise translated(error, path) from error
    db.row_factory = sqlite3.Row
    try:
        _check_version(await _version(db), path)
        await db.execute("PRAGMA foreign_keys = ON")
        if not read_only:
            await db.execute("PRAGMA journal_mode = WAL")
            await db.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        await db.close()
        raise translated(error, path) from error
    except BaseException:
        await db.close()
        raise
    return db


async def _migrate(db: aiosqlite.Connection, path: Path) -> None:
    try:
        await db.execute("PRAGMA foreign_keys = OFF")
        for version in range(await _version(db), len(MIGRATIONS)):
            await db.executescript(f"BEGIN; {MIGRATIONS[version]}; PRAGMA user_version = {version + 1}; COMMIT;")
        broken = list(await db.execute_fetchall("PRAGMA foreign_key_check"))
        await db.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    if broken:
        raise damaged(path, f"rows refer to what is not there: {[tuple(row) for row in broken[:3]]}")


async def _version(db: aiosqlite.Connection) -> int:
    ((version,),) = await db.execute_fetchall("PRAGMA user_version")
    return int(version)


def _check_version(version: int, path: Path) -> None:
    if version > len(MIGRATIONS):
        raise HostProblem(
            Reason.BAD_VERSION,
            f"{path} was written by a newer ingle (schema {version}; this one knows {len(MIGRATIONS)})",
            "upgrade ingle",
        )
