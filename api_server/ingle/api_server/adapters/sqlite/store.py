"""The store over aiosqlite: one connection that writes, under a lock; readers never wait for it (WAL).

Lists are read through aiosqlite's thread. One row is read at once, in the event loop: that takes five microseconds,
where the way through a thread takes a quarter of a millisecond, and every call starts with such a read.

Every public method is one transaction. A call that is cancelled either happened as a whole or not at all.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import aiosqlite

from ingle.api_server.adapters.sqlite import networks, references, rows
from ingle.api_server.adapters.sqlite.problems import damaged, refusal, telling, translated
from ingle.api_server.adapters.sqlite.schema import MIGRATIONS
from ingle.api_server.host.reserve import Reserve, allocate
from ingle.api_server.model.errors import Conflict, HostProblem, IngleError, NotFound, Reason
from ingle.api_server.model.network import USER_NETWORK
from ingle.api_server.model.operation import Operation
from ingle.api_server.model.vm import Image, Kernel, Owner, Running, Vm, VmState, check_move
from ingle.api_server.ports.store import JournalEntry

_BUSY_SECONDS = 5.0
_KEPT_OPERATIONS = 1000
"""Of those that have ended, at least; and never more than twice as many, however long a server runs."""
_LOG_BYTES = 4 * 1024 * 1024  # as much as is written before it goes into the database: wal_autocheckpoint's 1000 pages


class SqliteStore:
    """Implements ports.store.Store. Use as an async context manager: entering opens, migrates and checks the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.watch: Callable[[str], None] = lambda vm_id: None
        self._lock = asyncio.Lock()
        self._reserve = Reserve(path.parent)
        self._writer: aiosqlite.Connection
        self._reader: aiosqlite.Connection
        self._rows: sqlite3.Connection

    async def __aenter__(self) -> Self:
        self._reserve.tend()
        self._writer = await _open(self._path, read_only=False)
        try:
            await _migrate(self._writer, self._path)
            self._reader = await _open(self._path, read_only=True)
            self._rows = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro", uri=True, isolation_level=None, factory=telling(self._path)
            )
            self._rows.row_factory = sqlite3.Row
            # Zeros are the end of the log to SQLite. So long as it fits, a transaction needs no space on a full disk.
            allocate(self._path.with_name(f"{self._path.name}-wal"), _LOG_BYTES)
        except BaseException:
            await self._writer.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._rows.close()
        await self._reader.close()
        await self._writer.close()

    # -- VMs

    async def insert_vm(self, vm: Vm, token: bytes, owner: Owner | None = None) -> Vm:
        async with self._transaction() as db:
            if vm.network != USER_NETWORK:
                vm = replace(vm, slot=await networks.free_slot(db, vm.network))
            try:
                await _insert(db, "vms", {**rows.vm_columns(vm), "token": token})
            except sqlite3.IntegrityError as error:
                raise _why_not(error, vm) from None
            if owner is not None:
                await _insert(db, "owners", {"vm_id": vm.id, "pid": owner.pid, "start_time": owner.start_time})
            return vm

    async def update_vm(self, vm: Vm) -> None:
        columns = rows.vm_columns(vm)
        del columns["state"], columns["error"]
        async with self._transaction(vm.id) as db:
            try:
                await db.execute(rows.update("vms", columns), columns)
            except sqlite3.IntegrityError as error:
                raise _why_not(error, vm) from None

    async def move_vm(
        self, vm_id: str, state: VmState, *, running: Running | None = None, error: str = "", token: bytes | None = None
    ) -> Vm:
        async with self._transaction(vm_id) as db:
            vm = await _one_vm(db, vm_id)
            check_move(vm.name, vm.state, state)
            columns = {"id": vm_id, "state": state.value, "error": error} | ({"token": token} if token else {})
            await db.execute(rows.update("vms", columns), columns)
            if state not in {VmState.RUNNING, VmState.STOPPING}:
                await db.execute("DELETE FROM running WHERE vm_id = ?", (vm_id,))
            elif running is not None:
                await _insert(db, "running", rows.running_columns(vm_id, running))
            return await _one_vm(db, vm_id)

    async def delete_vm(self, vm_id: str) -> None:
        async with self._transaction(vm_id) as db:
            await db.execute("DELETE FROM vms WHERE id = ?", (vm_id,))
            await networks.forget_empty(db)

    async def owned_by_a_call(self, vm_id: str) -> None:
        async with self._transaction() as db:
            await db.execute("INSERT OR REPLACE INTO owners (vm_id) SELECT id FROM vms WHERE id = ?", (vm_id,))

    async def owners(self) -> list[tuple[str, Owner | None]]:
        found = await self._reader.execute_fetchall("SELECT vm_id, pid, start_time FROM owners")
        return [(row["vm_id"], None if row["pid"] is None else Owner(row["pid"], row["start_time"])) for row in found]

    async def vm(self, reference: str) -> Vm:
        return rows.vm_of(references.exact(self._rows, references.VM, reference))

    async def find_vm(self, reference: str) -> Vm:
        return rows.vm_of(references.found(self._rows, references.VM, reference))

    async def vms(self) -> list[Vm]:
        found = await self._reader.execute_fetchall(rows.SELECT_VMS + " ORDER BY created_at, id")
        return [rows.vm_of(row) for row in found]

    async def vm_slot(self, vm_id: str) -> int | None:
        row = self._rows.execute("SELECT slot FROM vms WHERE id = ?", (vm_id,)).fetchone()
        return None if row is None else row["slot"]

    def connected_vms(self, vm_id: str = "") -> list[Vm]:
        sql = rows.SELECT_VMS + " WHERE address != '' AND ?1 IN ('', id)"
        return [rows.vm_of(row) for row in self._rows.execute(sql, (vm_id,))]

    async def vm_token(self, vm_id: str) -> bytes:
        row = self._rows.execute("SELECT token FROM vms WHERE id = ?", (vm_id,)).fetchone()
        if row is None:
            raise references.not_found(references.VM, vm_id)
        return bytes(row["token"])

    # -- images

    async def add_image(self, image: Image, name: str) -> Image:
        async with self._transaction() as db:
            await _insert(db, "images", rows.image_columns(image), or_ignore=True)
            await db.execute("INSERT OR REPLACE INTO image_names (name, image_id) VALUES (?, ?)", (name, image.id))
            row = await _fetch_one(db, rows.SELECT_IMAGES + " WHERE id = ?", image.id)
            assert row is not None
            return rows.image_of(row)

    async def image(self, reference: str) -> Image:
        return rows.image_of(references.exact(self._rows, references.IMAGE, reference))

    async def find_image(self, reference: str) -> Image:
        return rows.image_of(references.found(self._rows, references.IMAGE, reference))

    async def images(self) -> list[Image]:
        found = await self._reader.execute_fetchall(rows.SELECT_IMAGES + " ORDER BY created_at, id")
        return [rows.image_of(row) for row in found]

    async def delete_image(self, image_id: str) -> None:
        await self._delete_unused("images", "image", image_id)

    # -- kernels

    async def add_kernel(self, kernel: Kernel, name: str) -> Kernel:
        async with self._transaction() as db:
            await _insert(db, "kernels", rows.kernel_columns(kernel), or_ignore=True)
            await db.execute("INSERT OR REPLACE INTO kernel_names (name, kernel_id) VALUES (?, ?)", (name, kernel.id))
            row = await _fetch_one(db, rows.SELECT_KERNELS + " WHERE id = ?", kernel.id)
            assert row is not None
            return rows.kernel_of(row)

    async def kernel(self, reference: str) -> Kernel:
        return rows.kernel_of(references.exact(self._rows, references.KERNEL, reference))

    async def find_kernel(self, reference: str) -> Kernel:
        return rows.kernel_of(references.found(self._rows, references.KERNEL, reference))

    async def kernels(self) -> list[Kernel]:
        found = await self._reader.execute_fetchall(rows.SELECT_KERNELS + " ORDER BY created_at, id")
        return [rows.kernel_of(row) for row in found]

    async def delete_kernel(self, kernel_id: str) -> None:
        await self._delete_unused("kernels", "kernel", kernel_id)

    # -- operations

    async def save_operation(self, operation: Operation) -> None:
        async with self._transaction() as db:
            await _insert(db, "operations", rows.operation_columns(operation), or_replace=True)
            # A row that takes another's place is the last one: an operation takes two places from its begin to its end.
            await db.execute(
                "DELETE FROM operations WHERE state != 'RUNNING' AND rowid <= (SELECT max(rowid) FROM operations) - ?",
                (2 * _KEPT_OPERATIONS,),
            )

    async def operation(self, op_id: str) -> Operation:
        row = self._rows.execute("SELECT * FROM operations WHERE id = ?", (op_id,)).fetchone()
        if row is None:
            raise NotFound(Reason.OPERATION_NOT_FOUND, f"no operation {op_id!r}", "ingle operation list")
        return rows.operation_of(row)

    async def operations(self, limit: int) -> list[Operation]:
        found = await self._reader.execute_fetchall(
            "SELECT * FROM operations ORDER BY created_at DESC, rowid DESC LIMIT ?", (limit,)
        )
        return [rows.operation_of(row) for row in found]

    # -- the journal

    async def intend(self, entry: JournalEntry) -> None:
        async with self._transaction() as db:
            await db.execute(
                "INSERT INTO journal (op_id, vm_id, step) VALUES (?, ?, ?)", (entry.op_id, entry.vm_id, entry.step)
            )

    async def forget(self, entry: JournalEntry) -> None:
        async with self._transaction() as db:
            await db.execute("DELETE FROM journal WHERE op_id = ? AND step = ?", (entry.op_id, entry.step))

    async def close(self, op_id: str) -> None:
        async with self._transaction() as db:
            await db.execute("DELETE FROM journal WHERE op_id = ?", (op_id,))
            await db.execute(
                "UPDATE operations SET state = 'SUCCEEDED', finished_at = ? WHERE id = ?",
                (rows.micros(datetime.now(UTC)), op_id),
            )

    async def open_entries(self) -> list[JournalEntry]:
        found = await self._reader.execute_fetchall("SELECT op_id, vm_id, step FROM journal ORDER BY seq")
        return [JournalEntry(row["op_id"], row["vm_id"], row["step"]) for row in found]

    # -- shared by the above

    @asynccontextmanager
    async def _transaction(self, vm_id: str = "") -> AsyncIterator[aiosqlite.Connection]:
        async with self._lock:
            self._reserve.tend()
            try:
                await self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                await self._writer.execute("COMMIT")
            except BaseException as error:
                # A cancelled COMMIT may have been carried out: then there is nothing to roll back, and that is right.
                await asyncio.shield(self._writer.rollback())
                if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
                    told = translated(error, self._path)
                    if told.reason is Reason.DISK_FULL:
                        self._reserve.give_up()  # for the next try
                    raise told from error
                raise
            finally:
                self.watch(vm_id)  # "": no VM's

    async def _delete_unused(self, table: str, noun: str, item_id: str) -> None:
        async with self._transaction() as db:
            users = list(await db.execute_fetchall(f"SELECT name FROM vms WHERE {noun}_id = ?", (item_id,)))
            if users:
                select = f"SELECT name FROM {noun}_names WHERE {noun}_id = ? ORDER BY name"
                own = [row["name"] for row in await db.execute_fetchall(select, (item_id,))] or [item_id[:12]]
                names = [row["name"] for row in users]
                by = f"VM {names[0]}" if len(names) == 1 else f"VMs {', '.join(names)}"
                raise Conflict(Reason.IN_USE, f"{noun} {own[0]} is used by {by}", f"ingle vm delete {' '.join(names)}")
            await db.execute(f"DELETE FROM {table} WHERE id = ?", (item_id,))


def check_database(path: Path) -> str:
    """Open an existing database read-only and answer what a doctor says about it. Raises HostProblem."""
    if (problem := refusal(path)) is not None:
        raise problem
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            _check_version(version, path)
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            (count,) = db.execute("SELECT count(*) FROM vms").fetchone() if version else (0,)
    except sqlite3.Error as error:
        raise damaged(path, f"it can't be read: {error}") from None
    if verdict != "ok":
        raise damaged(path, f"it is damaged: {verdict}")
    return f"schema {version} of {len(MIGRATIONS)}, {count} VMs"


def recorded_vms(path: Path) -> set[str] | None:
    """Ids of all VMs; none where there is no database, and None where it can't be read."""
    if not path.exists():
        return set()
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
            return {row[0] for row in db.execute("SELECT id FROM vms")}
    except sqlite3.Error:
        return None


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
        row = await _fetch_one(db, "PRAGMA user_version")
        assert row is not None
        _check_version(row[0], path)
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
        row = await _fetch_one(db, "PRAGMA user_version")
        assert row is not None
        for version in range(row[0], len(MIGRATIONS)):
            await db.executescript(f"BEGIN; {MIGRATIONS[version]}; PRAGMA user_version = {version + 1}; COMMIT;")
        await db.execute(
            "DELETE FROM operations WHERE id NOT IN (SELECT id FROM operations ORDER BY created_at DESC LIMIT ?)",
            (_KEPT_OPERATIONS,),
        )
    except sqlite3.Error as error:
        raise translated(error, path) from error


def _check_version(version: int, path: Path) -> None:
    if version > len(MIGRATIONS):
        raise HostProblem(
            Reason.BAD_VERSION,
            f"{path} was written by a newer ingle (schema {version}; this one knows {len(MIGRATIONS)})",
            "upgrade ingle",
        )


def _why_not(error: sqlite3.IntegrityError, vm: Vm) -> IngleError:
    if "vms.name" in str(error):
        return Conflict(Reason.NAME_TAKEN, f"there is a VM named {vm.name!r} already", f"ingle vm show {vm.name}")
    if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return NotFound(Reason.IMAGE_NOT_FOUND, "the image or kernel was deleted meanwhile", "ingle image list")
    return HostProblem(Reason.INTERNAL, f"VM {vm.name!r} can't be stored: {error}")


async def _one_vm(db: aiosqlite.Connection, vm_id: str) -> Vm:
    row = await _fetch_one(db, rows.SELECT_VMS + " WHERE id = ?", vm_id)
    if row is None:
        raise references.not_found(references.VM, vm_id)
    return rows.vm_of(row)


async def _fetch_one(db: aiosqlite.Connection, sql: str, *parameters: object) -> sqlite3.Row | None:
    async with db.execute(sql, parameters) as cursor:
        return await cursor.fetchone()


async def _insert(
    db: aiosqlite.Connection,
    table: str,
    columns: Mapping[str, Any],
    *,
    or_ignore: bool = False,
    or_replace: bool = False,
) -> None:
    verb = "INSERT OR IGNORE" if or_ignore else "INSERT OR REPLACE" if or_replace else "INSERT"
    names = ", ".join(columns)
    places = ", ".join(f":{name}" for name in columns)
    await db.execute(f"{verb} INTO {table} ({names}) VALUES ({places})", dict(columns))
