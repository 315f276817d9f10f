"""The journal of steps in flight, in SQLite."""

import sqlite3

import aiosqlite

from ingle.api_server.adapters.sqlite import former
from ingle.api_server.adapters.sqlite.database import Database, update
from ingle.api_server.adapters.sqlite.operations import stages_text
from ingle.api_server.model.operation import Stage
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.ports.store.journal import JournalEntry


class SqliteJournal:
    """Implements ports.store.journal.Journal."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def intend(self, entry: JournalEntry, stages: tuple[Stage, ...] = ()) -> None:
        async with self._database.transaction() as db:
            await db.execute("INSERT INTO journal (op_id, kind, resource_id, step) VALUES (?, ?, ?, ?)", _values(entry))
            if stages:
                await update(db, "operations", entry.op_id, {"stages": stages_text(stages)})

    async def forget(self, entry: JournalEntry) -> None:
        async with self._database.transaction() as db:
            await db.execute(
                "DELETE FROM journal WHERE (op_id, kind, resource_id, step) = (?, ?, ?, ?)", _values(entry)
            )

    async def close(self, op_id: str, resource: Resource) -> None:
        async with self._database.transaction() as db:
            await close(db, op_id, resource)

    async def kept(self, op_id: str) -> list[Resource]:
        found = await self._database.read("SELECT kind, resource_id FROM kept WHERE op_id = ? ORDER BY rowid", op_id)
        return [_resource_of(row) for row in found]

    async def open_entries(self) -> list[JournalEntry]:
        found = await self._database.read("SELECT op_id, kind, resource_id, step FROM journal ORDER BY seq")
        return [JournalEntry(row["op_id"], _resource_of(row), row["step"]) for row in found]


async def close(db: aiosqlite.Connection, op_id: str, resource: Resource) -> None:
    """As of SqliteJournal, in the transaction that is open."""
    await db.execute(
        "DELETE FROM journal WHERE (op_id, kind, resource_id) = (?, ?, ?)", (op_id, resource.kind.value, resource.id)
    )
    if resource.kind is ResourceKind.VM:
        await former.forget(db, resource.id)
    await keep(db, op_id, resource)


async def keep(db: aiosqlite.Connection, op_id: str, resource: Resource) -> None:
    """The operation has completed it."""
    await db.execute(
        "INSERT OR IGNORE INTO kept (op_id, kind, resource_id) VALUES (?, ?, ?)",
        (op_id, resource.kind.value, resource.id),
    )


def _resource_of(row: sqlite3.Row) -> Resource:
    return Resource(ResourceKind(row["kind"]), row["resource_id"])


def _values(entry: JournalEntry) -> tuple[str, str, str, str]:
    """The columns of `journal` but `seq`, in their order."""
    return entry.op_id, entry.resource.kind.value, entry.resource.id, entry.step
