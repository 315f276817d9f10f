"""Images and kernels, in SQLite: the same but for what is known of one."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import aiosqlite

from ingle.api_server.adapters.sqlite import image_configs, references
from ingle.api_server.adapters.sqlite.database import Database, fetch_one, insert, micros, time_of
from ingle.api_server.adapters.sqlite.events import SqliteEvents
from ingle.api_server.adapters.sqlite.journal import keep
from ingle.api_server.model.caller import Caller, called
from ingle.api_server.model.errors import Conflict, Reason
from ingle.api_server.model.event import EventKind, Happening
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.model.vm import Image, Kernel

Item = TypeVar("Item", bound=Image | Kernel)

_SHOWN = 12

_MOST_NAMES = 100
"""Of one item, and of one owner: all of them are told to whoever looks at the item, or at all there are."""


@dataclass(frozen=True, slots=True)
class _Shape(Generic[Item]):
    """How one kind of them is stored."""

    kind: references.Kind
    of: Callable[[sqlite3.Row], Item]
    columns: Callable[[Item], Mapping[str, Any]]


class SqliteItems(Generic[Item]):
    """Implements ports.store.items.ItemStore."""

    def __init__(self, database: Database, events: SqliteEvents, shape: _Shape[Item]) -> None:
        self._database = database
        self._events = events
        self._shape = shape
        self._kind = shape.kind

    async def add(self, item: Item, name: str, caller: Caller, op_id: str = "", *, pulled: bool = False) -> Item:
        kind = self._kind
        async with self._database.transaction() as db:
            self._check_names(caller, await db.execute_fetchall(self._of_name(), (name,)))
            await self._check_has_few(db, item, name, caller)
            await insert(db, kind.table, self._shape.columns(item), "INSERT OR IGNORE")
            columns = {"name": name, f"{kind.noun}_id": item.id, "owner": caller.uid}
            await insert(db, kind.named, columns, "INSERT OR REPLACE")
            if op_id:
                await keep(db, op_id, Resource(ResourceKind(kind.noun), item.id))
            row = await fetch_one(db, f"{kind.select} WHERE id = ?", item.id)
            if row is None:
                raise references.not_found(kind, item.id)
            what = "PULLED" if pulled else "ADDED"
            source = item.source if pulled else ""
            await self._events.tell(db, [self._happening(what, item.id, name, op_id, source)])
            return self._shape.of(row)

    async def check_may_name(self, name: str, caller: Caller) -> None:
        self._check_names(caller, await self._database.read(self._of_name(), name))

    def _of_name(self) -> str:
        """Asks for a name and its owner."""
        return f"SELECT name, owner FROM {self._kind.named} WHERE name = ?"

    def _check_names(self, caller: Caller, names: Iterable[sqlite3.Row]) -> None:
        for row in names:
            caller.check_owns(row["owner"], f"{self._kind.noun} name {row['name']!r}")

    async def _check_has_few(self, db: aiosqlite.Connection, item: Item, name: str, caller: Caller) -> None:
        noun = self._kind.noun
        sql = f"SELECT count(*) AS names FROM {self._kind.named} WHERE {noun}_id = ? AND owner = ? AND name != ?"
        row = await fetch_one(db, sql, item.id, caller.uid, name)
        if row is not None and row["names"] >= _MOST_NAMES:
            raise Conflict(
                Reason.QUOTA_EXCEEDED,
                f"{noun} {item.id[:_SHOWN]} has {row['names']} names of yours already; {_MOST_NAMES} are allowed",
                f"ingle {noun} delete NAME, which takes one of several away",
            )

    async def get(self, reference: str) -> Item:
        return self._shape.of(references.exact(self._database.rows, self._kind, references.shared(reference)))

    async def find(self, reference: str) -> Item:
        return self._shape.of(references.found(self._database.rows, self._kind, references.shared(reference)))

    async def all(self) -> list[Item]:
        return [
            self._shape.of(row) for row in await self._database.read(f"{self._kind.select} ORDER BY created_at, id")
        ]

    async def delete(self, item_id: str, caller: Caller, op_id: str = "") -> bool:
        noun = self._kind.noun
        async with self._database.transaction() as db:
            row = await fetch_one(db, f"{self._kind.select} WHERE id = ?", item_id)
            if row is None:
                raise references.not_found(self._kind, item_id)
            item = self._shape.of(row)
            own = item.names[0] if item.names else item_id[:_SHOWN]
            if not any(map(caller.knows, item.owners)):
                caller.check_owns(item.owner, f"{noun} {own}")
            if others := [owner for owner in item.owners if not caller.knows(owner)]:
                await self._leave(db, item, caller, others[0])
                return False
            vms = list(await db.execute_fetchall(f"SELECT owner, name FROM vms WHERE {noun}_id = ?", (item_id,)))
            sql = f"SELECT owner, iif(name = '', id, name) AS name FROM snapshots WHERE {noun}_id = ?"
            snapshots = list(await db.execute_fetchall(sql, (item_id,)))
            if vms or snapshots:
                raise _in_use(f"{noun} {own}", {"VM": vms, "snapshot": snapshots}, caller)
            await self._events.tell(db, [self._happening("REMOVED", item_id, ", ".join(item.names), op_id)])
            await db.execute(f"DELETE FROM {self._kind.table} WHERE id = ?", (item_id,))
            return True

    async def untag(self, item_id: str, name: str, caller: Caller) -> bool:
        kind = self._kind
        async with self._database.transaction() as db:
            sql = f"SELECT name, owner FROM {kind.named} WHERE {kind.noun}_id = ?"
            names = list(await db.execute_fetchall(sql, (item_id,)))
            meant = [row for row in names if row["name"] == name]
            if not meant or len(names) == 1:
                return False
            self._check_names(caller, meant)
            await db.execute(f"DELETE FROM {kind.named} WHERE name = ?", (name,))
            return True

    async def _leave(self, db: aiosqlite.Connection, item: Item, caller: Caller, heir: int) -> None:
        """Others have it too: what is the caller's of it goes."""
        where = f"{self._kind.noun}_id = ? AND owner = ?"
        await db.execute(f"DELETE FROM {self._kind.named} WHERE {where}", (item.id, caller.uid))
        values = (heir, item.id, caller.uid)
        await db.execute(f"UPDATE {self._kind.table} SET owner = ? WHERE id = ? AND owner = ?", values)

    async def used(self) -> set[str]:
        column = f"{self._kind.noun}_id"
        sql = f"SELECT {column} AS id FROM vms UNION SELECT {column} FROM snapshots"
        return {row["id"] for row in await self._database.read(sql)}

    def _happening(self, what: str, item_id: str, name: str, op_id: str, source: str = "") -> Happening:
        noun = self._kind.noun
        return Happening(
            kind=EventKind[f"{noun.upper()}_{what}"],
            resource=Resource(ResourceKind(noun), item_id),
            name=name,
            op_id=op_id,
            attributes={"source": source} if source else {},
        )


def _in_use(what: str, users: Mapping[str, Sequence[sqlite3.Row]], caller: Caller) -> Conflict:
    """Of what is strangers' it is told that there is some."""
    by: list[str] = []
    others: list[str] = []
    remedies: list[str] = []
    for noun, rows in users.items():
        known = [called(row["owner"], row["name"], caller) for row in rows if caller.knows(row["owner"])]
        if known:
            by.append(f"{noun if len(known) == 1 else f'{noun}s'} {', '.join(known)}")
            remedies.append(f"ingle {noun.lower()} delete {' '.join(known)}")
        if len(known) < len(rows):
            others.append(f"{noun}s of other users")
    return Conflict(Reason.IN_USE, f"{what} is used by {' and by '.join([*by, *others])}", "; ".join(remedies))


def _kind(noun: str, missing: Reason) -> references.Kind:
    table, named = f"{noun}s", f"{noun}_names"
    return references.Kind(
        noun,
        missing,
        table,
        f"SELECT *, (SELECT json_group_array(name) FROM {named} WHERE {noun}_id = id) AS names,"
        f" (SELECT json_group_array(owner) FROM {named} WHERE {noun}_id = id) AS namers FROM {table}",
        f"WHERE id = :said OR id = (SELECT {noun}_id FROM {named} WHERE name = :said) ORDER BY id != :said LIMIT 1",
        named,
    )


def _owners(row: sqlite3.Row) -> tuple[int, ...]:
    return tuple(sorted({row["owner"], *json.loads(row["namers"])}))


def _image_of(row: sqlite3.Row) -> Image:
    return Image(
        id=row["id"],
        names=tuple(sorted(json.loads(row["names"]))),
        size_bytes=row["size_bytes"],
        created_at=time_of(row["created_at"]),
        source=row["source"],
        owner=row["owner"],
        owners=_owners(row),
        config=image_configs.decoded(row["config"]),
    )


def _image_columns(image: Image) -> Mapping[str, Any]:
    return {
        "id": image.id,
        "size_bytes": image.size_bytes,
        "created_at": micros(image.created_at),
        "source": image.source,
        "owner": image.owner,
        "config": image_configs.encoded(image.config),
    }


def _kernel_of(row: sqlite3.Row) -> Kernel:
    return Kernel(
        id=row["id"],
        names=tuple(sorted(json.loads(row["names"]))),
        release=row["release"],
        size_bytes=row["size_bytes"],
        modules=tuple(json.loads(row["modules"])),
        created_at=time_of(row["created_at"]),
        source=row["source"],
        owner=row["owner"],
        owners=_owners(row),
        disk_modules=row["disk_modules"],
        disk_bytes=row["disk_bytes"],
    )


def _kernel_columns(kernel: Kernel) -> Mapping[str, Any]:
    return {
        "id": kernel.id,
        "release": kernel.release,
        "size_bytes": kernel.size_bytes,
        "modules": json.dumps(kernel.modules),
        "created_at": micros(kernel.created_at),
        "source": kernel.source,
        "owner": kernel.owner,
        "disk_modules": kernel.disk_modules,
        "disk_bytes": kernel.disk_bytes,
    }


IMAGES = _Shape(_kind("image", Reason.IMAGE_NOT_FOUND), _image_of, _image_columns)
KERNELS = _Shape(_kind("kernel", Reason.KERNEL_NOT_FOUND), _kernel_of, _kernel_columns)
