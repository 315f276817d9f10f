"""Snapshots, in SQLite."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiosqlite

from ingle.api_server.adapters.sqlite import references
from ingle.api_server.adapters.sqlite.database import Database, fetch_one, insert, micros, time_of, update
from ingle.api_server.adapters.sqlite.events import SqliteEvents
from ingle.api_server.adapters.sqlite.settings import decoded, encoded
from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.errors import Conflict, HostProblem, IngleError, NotFound, Reason
from ingle.api_server.model.event import EventKind, of_snapshot
from ingle.api_server.model.snapshot import Snapshot, SnapshotState
from ingle.api_server.model.vm import Acceleration

WithinQuota = Callable[[aiosqlite.Connection, int | None], AbstractAsyncContextManager[None]]

_SELECT = """
    SELECT *, (
        WITH RECURSIVE below (id) AS (
            SELECT snapshots.parent_id WHERE snapshots.parent_id IS NOT NULL
            UNION ALL SELECT next.parent_id FROM below JOIN snapshots AS next ON next.id = below.id
            WHERE next.parent_id IS NOT NULL
        ) SELECT count(*) FROM below
    ) AS depth, (
        SELECT json_group_array(name) FROM (
            SELECT name FROM vms WHERE vms.snapshot_id = snapshots.id
            UNION SELECT vms.name FROM former JOIN vms ON id = vm_id WHERE former.snapshot_id = snapshots.id
            UNION ALL SELECT other.id FROM snapshots AS other WHERE other.parent_id = snapshots.id
        )
    ) AS used_by FROM snapshots
"""
_BY_ID_OR_NAME = """
    WHERE id = :said AND (owner = :uid OR :admin) OR owner = :uid AND name = :said ORDER BY id != :said LIMIT 1
"""
KIND = references.Kind(
    "snapshot", Reason.SNAPSHOT_NOT_FOUND, "snapshots", _SELECT, _BY_ID_OR_NAME, "snapshots", owned=True
)


class SqliteSnapshots:
    """Implements ports.store.snapshots.SnapshotStore."""

    def __init__(self, database: Database, events: SqliteEvents, within_quota: WithinQuota) -> None:
        self._database = database
        self._events = events
        self._within_quota = within_quota

    async def insert(self, snapshot: Snapshot) -> None:
        async with self._database.transaction() as db, self._within_quota(db, snapshot.owner):
            try:
                await insert(db, "snapshots", {**_columns_at_first(snapshot), **_columns(snapshot)})
            except sqlite3.IntegrityError as error:
                raise _why_not(error, snapshot) from None

    async def complete(self, snapshot: Snapshot, token: bytes = b"", op_id: str = "") -> Snapshot:
        async with self._database.transaction() as db, self._within_quota(db, snapshot.owner):
            columns = {"state": SnapshotState.READY.value, "token": token, **_columns(snapshot)}
            await update(db, "snapshots", snapshot.id, columns)
            whole = await _get(db, snapshot.id)
            await self._events.tell(db, [of_snapshot(EventKind.SNAPSHOT_CREATED, whole, op_id)])
            return whole

    async def flattened(self, snapshot: Snapshot, op_id: str = "") -> Snapshot:
        async with self._database.transaction() as db, self._within_quota(db, snapshot.owner):
            columns = {"parent_id": None, "size_bytes": snapshot.size_bytes, "digest": snapshot.digest}
            await update(db, "snapshots", snapshot.id, columns)
            flat = await _get(db, snapshot.id)
            await self._events.tell(db, [of_snapshot(EventKind.SNAPSHOT_FLATTENED, flat, op_id)])
            return flat

    async def delete(self, snapshot_id: str, op_id: str = "") -> tuple[str, ...]:
        async with self._database.transaction() as db:
            row = await fetch_one(db, f"{_SELECT} WHERE id = ?", snapshot_id)
            if row is None:
                return ()
            snapshot = _snapshot_of(row)
            if not snapshot.used_by:
                await db.execute("DELETE FROM snapshots WHERE id = ?", (snapshot_id,))
                if snapshot.state is SnapshotState.READY:  # what was never whole has never been told of either
                    await self._events.tell(db, [of_snapshot(EventKind.SNAPSHOT_DELETED, snapshot, op_id)])
            elif snapshot.name:
                await update(db, "snapshots", snapshot_id, {"name": ""})
                await self._events.tell(db, [of_snapshot(EventKind.SNAPSHOT_RELEASED, snapshot, op_id)])
            return snapshot.used_by

    async def get(self, snapshot_id: str) -> Snapshot:
        row = self._database.rows.execute(f"{_SELECT} WHERE id = ?", (snapshot_id,)).fetchone()
        if row is None:
            raise references.not_found(KIND, snapshot_id)
        return _snapshot_of(row)

    async def chain(self, snapshot_id: str) -> tuple[Snapshot, ...]:
        found: list[Snapshot] = []
        while snapshot_id:
            found.append(await self.get(snapshot_id))
            snapshot_id = found[-1].parent_id
        return tuple(found)

    async def exact(self, reference: Reference) -> Snapshot:
        return _snapshot_of(references.exact(self._database.rows, KIND, reference))

    async def find(self, reference: Reference) -> Snapshot:
        return _snapshot_of(references.found(self._database.rows, KIND, reference))

    async def all(self) -> list[Snapshot]:
        return [_snapshot_of(row) for row in await self._database.read(f"{_SELECT} ORDER BY created_at, id")]

    async def of(self, caller: Caller, *, all_users: bool = False) -> list[Snapshot]:
        if all_users:
            caller.check_all_users()
            return await self.all()
        sql = f"{_SELECT} WHERE owner = ? ORDER BY created_at, id"
        return [_snapshot_of(row) for row in await self._database.read(sql, caller.uid)]

    async def token(self, snapshot_id: str) -> bytes:
        row = self._database.rows.execute("SELECT token FROM snapshots WHERE id = ?", (snapshot_id,)).fetchone()
        if row is None:
            raise references.not_found(KIND, snapshot_id)
        return bytes(row["token"])


def _why_not(error: sqlite3.IntegrityError, snapshot: Snapshot) -> IngleError:
    if "snapshots.name" in str(error):
        name = snapshot.name
        return Conflict(Reason.NAME_TAKEN, f"there is a snapshot named {name!r} already", f"ingle snapshot show {name}")
    if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return NotFound(Reason.VM_NOT_FOUND, "the VM was deleted meanwhile", "ingle vm list")
    return HostProblem(Reason.INTERNAL, f"{snapshot.told} can't be stored: {error}")


async def _get(db: aiosqlite.Connection, snapshot_id: str) -> Snapshot:
    row = await fetch_one(db, f"{_SELECT} WHERE id = ?", snapshot_id)
    if row is None:
        raise references.not_found(KIND, snapshot_id)
    return _snapshot_of(row)


def _columns_at_first(snapshot: Snapshot) -> dict[str, Any]:
    """Those that never change."""
    return {
        "id": snapshot.id,
        "owner": snapshot.owner,
        "name": snapshot.name,
        "created_at": micros(snapshot.created_at),
        "state": snapshot.state.value,
        "vm_id": snapshot.vm_id,
        "labels": json.dumps(dict(snapshot.labels), ensure_ascii=False),
    }


def _columns(snapshot: Snapshot) -> dict[str, Any]:
    """Those that are known once it is whole."""
    return {
        "vm_name": snapshot.vm_name,
        "settings": encoded(snapshot.settings),
        "memory": int(snapshot.memory),
        "acceleration": snapshot.acceleration.value,
        "memory_key": snapshot.memory_key,
        "parent_id": snapshot.parent_id or None,
        "size_bytes": snapshot.size_bytes,
        "pause": round(snapshot.pause_seconds * 1e6),
        "digest": snapshot.digest,
    }


def _snapshot_of(row: sqlite3.Row) -> Snapshot:
    """A row of _SELECT."""
    return Snapshot(
        id=row["id"],
        name=row["name"],
        owner=row["owner"],
        created_at=time_of(row["created_at"]),
        vm_id=row["vm_id"],
        vm_name=row["vm_name"],
        settings=decoded(row["settings"]),
        memory=bool(row["memory"]),
        state=SnapshotState(row["state"]),
        acceleration=Acceleration(row["acceleration"]),
        memory_key=row["memory_key"],
        parent_id=row["parent_id"] or "",
        depth=row["depth"],
        labels=json.loads(row["labels"]),
        size_bytes=row["size_bytes"],
        pause_seconds=row["pause"] / 1e6,
        digest=row["digest"],
        used_by=tuple(sorted(json.loads(row["used_by"]))),
    )
