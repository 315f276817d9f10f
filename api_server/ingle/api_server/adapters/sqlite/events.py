"""Events, in SQLite.

Who watches is woken by us and never asks in vain: the newest events are in memory for all watchers, once, and only who
is further behind reads the table, at its own pace.
"""

import asyncio
import json
import sqlite3
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import aiosqlite

from ingle.api_server.adapters.sqlite.database import Database, fetch_one, micros, time_of
from ingle.api_server.model.errors import CursorExpired
from ingle.api_server.model.event import Event, EventKind, Happening, StopCause
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.ports.store.events import Told

KEPT = 10_000
"""Of each owner, and of what all users share."""

KEPT_BYTES = 16 * 1024 * 1024
"""The same; those with few labels have not as many by far."""

KEPT_FOR = timedelta(days=30)

_SMALL = 1000  # KEPT of these are less than KEPT_BYTES, and need not be counted
_IN_MEMORY = 250
_AT_ONCE = 100
_NOBODYS = -1
"""In the place of an owner, of what all users share."""


class SqliteEvents:
    """Implements ports.store.events.EventStore."""

    def __init__(self, database: Database) -> None:
        self.changed = asyncio.Event()
        self._database = database
        self._pending: list[Event] = []
        self._recent: deque[Event] = deque()
        self._recent_begin: int | None = None
        """All that is behind this cursor is in `_recent`; None: who knows."""

        database.ended = self._ended

    async def tell(self, db: aiosqlite.Connection, happenings: Iterable[Happening]) -> None:
        """Record them in the transaction that is open."""
        now = datetime.now(UTC)
        for happening in happenings:
            columns = (micros(now), *_columns(happening))
            sql = f"INSERT INTO events ({_COLUMNS}) VALUES ({', '.join('?' * len(columns))}) RETURNING cursor, size"
            row = await fetch_one(db, sql, *columns)
            assert row is not None
            self._pending.append(Event(row["cursor"], now, happening))
            await _forget_many(db, columns[1], large=row["size"] > _SMALL)
        await _forget_old(db, micros(now - KEPT_FOR))

    async def record(self, happening: Happening) -> None:
        async with self._database.transaction() as db:
            await self.tell(db, (happening,))

    async def behind(self, cursor: int, owner: int | None) -> Told:
        if self._recent_begin is not None and cursor >= self._recent_begin:
            return self._out_of_memory(cursor, owner)
        newest = self.newest()
        rows = await self._database.read(
            "SELECT * FROM events WHERE cursor > ?1 AND (?2 IS NULL OR owner IN (?2, ?3)) ORDER BY cursor LIMIT ?4",
            cursor, owner, _NOBODYS, _AT_ONCE,
        )  # fmt: skip
        events = [_event_of(row) for row in rows]
        # Asked last: what was forgotten while we read is told as well.
        if (oldest := self.oldest(owner)) > cursor:
            raise CursorExpired(cursor, oldest)
        last = events[-1].cursor if events else cursor
        return Told(events, last if len(events) == _AT_ONCE else max(newest, last))

    def newest(self) -> int:
        row = self._database.rows.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return 0 if row is None else row["seq"]

    def oldest(self, owner: int | None) -> int:
        sql = "SELECT ifnull(max(cursor), 0) AS cursor FROM forgotten_events WHERE ?1 IS NULL OR owner IN (?1, ?2)"
        cursor: int = self._database.rows.execute(sql, (owner, _NOBODYS)).fetchone()["cursor"]
        return cursor

    async def before(self, time: datetime, owner: int | None) -> int:
        sql = "SELECT min(cursor) - 1 AS cursor FROM events WHERE time >= ?"
        ((found,),) = await self._database.read(sql, micros(time))
        return max(self.newest() if found is None else found, self.oldest(owner))

    def _out_of_memory(self, cursor: int, owner: int | None) -> Told:
        found: list[Event] = []
        end = cursor
        for event in self._recent:
            if event.cursor <= cursor:
                continue
            end = event.cursor
            if owner is None or event.what.owner in (owner, None):
                found.append(event)
                if len(found) == _AT_ONCE:
                    break
        return Told(found, end)

    def _ended(self, committed: bool) -> None:
        """A transaction has ended; not committed may mean that nobody knows."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        if committed:
            if self._recent_begin is None:
                self._recent_begin = pending[0].cursor - 1
            self._recent.extend(pending)
            while len(self._recent) > _IN_MEMORY:
                self._recent_begin = self._recent.popleft().cursor
        else:
            self._recent.clear()
            self._recent_begin = None
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


async def _forget_many(db: aiosqlite.Connection, owner: object, *, large: bool) -> None:
    """Of one owner those that are too many, or too much."""
    row = await fetch_one(
        db, "SELECT cursor FROM events WHERE owner = ? ORDER BY cursor DESC LIMIT 1 OFFSET ?", owner, KEPT
    )
    if row is not None:
        await _forget(db, owner, row["cursor"])
    if not large:
        return
    row = await fetch_one(
        db,
        """
        SELECT max(cursor) AS cursor FROM (
            SELECT cursor, sum(size) OVER (ORDER BY cursor DESC) AS total FROM events WHERE owner = ?
        ) WHERE total > ?
        """,
        owner,
        KEPT_BYTES,
    )
    if row is not None and row["cursor"] is not None:
        await _forget(db, owner, row["cursor"])


async def _forget_old(db: aiosqlite.Connection, time: int) -> None:
    """Of all owners those from before that time."""
    # +owner: found by the time, hardly ever any, and not by going through all in the order of owners.
    sql = "SELECT owner, max(cursor) AS cursor FROM events WHERE time < ? GROUP BY +owner"
    for row in await db.execute_fetchall(sql, (time,)):
        await _forget(db, row["owner"], row["cursor"])


async def _forget(db: aiosqlite.Connection, owner: object, cursor: int) -> None:
    await db.execute("INSERT OR REPLACE INTO forgotten_events (owner, cursor) VALUES (?, ?)", (owner, cursor))
    await db.execute("DELETE FROM events WHERE owner = ? AND cursor <= ?", (owner, cursor))


_COLUMNS = "time, owner, kind, resource_kind, resource_id, name, labels, op_id, cause, message, attributes"


def _columns(what: Happening) -> tuple[object, ...]:
    """Those of _COLUMNS, without the time."""
    return (
        _NOBODYS if what.owner is None else what.owner,
        what.kind.name,
        what.resource and what.resource.kind.value,
        what.resource and what.resource.id,
        what.name,
        json.dumps(dict(what.labels), ensure_ascii=False),
        what.op_id,
        what.cause and what.cause.name,
        what.message,
        json.dumps(dict(what.attributes), ensure_ascii=False),
    )


def _event_of(row: sqlite3.Row) -> Event:
    resource, cause, owner = row["resource_kind"], row["cause"], row["owner"]
    return Event(
        cursor=row["cursor"],
        time=time_of(row["time"]),
        what=Happening(
            kind=EventKind[row["kind"]],
            resource=None if resource is None else Resource(ResourceKind(resource), row["resource_id"]),
            name=row["name"],
            owner=None if owner == _NOBODYS else owner,
            labels=json.loads(row["labels"]),
            op_id=row["op_id"],
            cause=None if cause is None else StopCause[cause],
            message=row["message"],
            attributes=json.loads(row["attributes"]),
        ),
    )
