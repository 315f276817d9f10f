"""VMs, in SQLite."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiosqlite

from ingle.api_server.adapters.sqlite import former, journal, networks, references
from ingle.api_server.adapters.sqlite.database import Database, fetch_one, insert, micros, time_of, update
from ingle.api_server.adapters.sqlite.events import SqliteEvents
from ingle.api_server.adapters.sqlite.settings import decoded, encoded
from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.errors import HostProblem, IngleError, NotFound, Reason
from ingle.api_server.model.event import EventKind, StopCause, of_change, of_deletion, of_move, of_vm
from ingle.api_server.model.network import USER_NETWORK
from ingle.api_server.model.quota import NO_LIMITS, Quota, Use
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.model.vm import (
    Acceleration,
    Keeper,
    LiveVmm,
    Vm,
    VmSettings,
    VmState,
    check_move,
    outdates_memory,
)
from ingle.api_server.ports.network import Link


class _Row(NamedTuple):
    """What is read of a VM, each from the column of its name."""

    id: str
    name: str
    created_at: int
    settings: str
    state: str
    state_since: int
    asleep_since: int | None
    disk_generation: int
    error: str
    slot: int | None
    address: str
    address6: str
    generation: int
    owner: int
    snapshot_id: str | None
    pid: int | None
    start_time: int
    acceleration: str
    started_at: int
    boot_id: str
    warm_key: str


_SELECT = f"SELECT {', '.join(_Row._fields)} FROM vms LEFT JOIN live_vmms ON vm_id = id"
_OF_OWNER = f"{_SELECT} WHERE owner = ? ORDER BY created_at, id"
_SNAPSHOTS_OF_OWNER = "SELECT ifnull(sum(size_bytes), 0) FROM snapshots WHERE owner = ?"
_BY_ID_OR_NAME = """
    WHERE id = :said AND (owner = :uid OR :admin) OR owner = :uid AND name = :said ORDER BY id != :said LIMIT 1
"""
KIND = references.Kind("VM", Reason.VM_NOT_FOUND, "vms", _SELECT, _BY_ID_OR_NAME, "vms", owned=True)


class SqliteVms:
    """Implements ports.store.vms.VmStore."""

    def __init__(self, database: Database, events: SqliteEvents, quota_of: Callable[[int], Quota]) -> None:
        self._database = database
        self._events = events
        self._quota_of = quota_of
        self.watchers: list[Callable[[str], None]] = []

    async def use(self, owner: int) -> Use:
        ((snapshots,),) = await self._database.read(_SNAPSHOTS_OF_OWNER, owner)
        return Use.of(map(_vm_of, await self._database.read(_OF_OWNER, owner))) + Use(disk_bytes=snapshots)

    async def check_room(self, owner: int, more: Use) -> None:
        before = await self.use(owner)
        self._quota_of(owner).check(before, before + more)

    async def check_again(self, vm: Vm) -> None:
        others = [each for each in map(_vm_of, await self._database.read(_OF_OWNER, vm.owner)) if each.id != vm.id]
        stopped = replace(await self.get(vm.id), state=VmState.STOPPED)
        again = replace(vm, state=VmState.STARTING)
        self._quota_of(vm.owner).check(Use.of([*others, stopped]), Use.of([*others, again]))

    async def insert(self, vm: Vm, token: bytes, keeper: Keeper | None = None) -> Vm:
        async with self._database.transaction() as db, self.within_quota(db, vm.owner):
            if vm.settings.network != USER_NETWORK:
                vm = replace(vm, slot=await networks.free_slot(db, vm.owner, vm.settings.network))
            await former.check_name_free(db, vm)
            try:
                columns = {
                    "id": vm.id,
                    "name": vm.name,
                    "created_at": micros(vm.created_at),
                    "settings": encoded(vm.settings),
                    "state": vm.state.value,
                    "state_since": micros(vm.state_since),
                    "disk_generation": vm.disk_generation,
                    "error": vm.error,
                    "slot": vm.slot,
                    "generation": vm.generation,
                    "owner": vm.owner,
                    "token": token,
                    "snapshot_id": vm.snapshot_id or None,
                }
                await insert(db, "vms", columns)
            except sqlite3.IntegrityError as error:
                raise _why_not(error, vm) from None
            if keeper is not None:
                await insert(db, "keepers", {"vm_id": vm.id, "pid": keeper.pid, "start_time": keeper.start_time})
            return vm

    async def change(self, vm: Vm, op_id: str = "") -> None:
        async with self._change(vm.id) as db, self.within_quota(db, vm.owner):
            before = await _get(db, vm.id)
            await former.remember(db, vm.id)
            await former.check_name_free(db, vm)
            columns = {"name": vm.name, "settings": encoded(vm.settings), "generation": vm.generation}
            try:
                await update(db, "vms", vm.id, columns)
            except sqlite3.IntegrityError as error:
                raise _why_not(error, vm) from None
            await self._events.tell(db, of_change(before, vm, op_id))

    async def changed(self, vm_id: str) -> Vm | None:
        sql = f"{_SELECT} WHERE id = (SELECT former.vm_id FROM former WHERE former.vm_id = ?)"
        row = self._database.rows.execute(sql, (vm_id,)).fetchone()
        return None if row is None else _vm_of(row)

    async def restore(self, vm_id: str, op_id: str = "") -> None:
        async with self._change(vm_id) as db:
            before = await _find(db, vm_id)
            await former.restore(db, vm_id)
            if before is not None:
                await self._events.tell(db, of_change(before, await _get(db, vm_id), op_id))

    async def move(
        self,
        vm_id: str,
        state: VmState,
        *,
        vmm: LiveVmm | None = None,
        link: Link | None = None,
        error: str = "",
        token: bytes | None = None,
        cause: StopCause | None = None,
        op_id: str = "",
        completes: bool = False,
    ) -> Vm:
        before = await self.get(vm_id)
        # Not who could not wake and hibernates again: that takes nothing new, and must be possible.
        takes = state is VmState.STARTING or (before.state, state) == (VmState.PAUSED, VmState.HIBERNATED)
        counted = before.owner if takes else None
        async with self._change(vm_id) as db, self.within_quota(db, counted):
            vm = await _get(db, vm_id)
            check_move(vm.name, vm.state, state)
            columns = _columns_of_move(vm, state) | {"error": error} | ({"token": token} if token else {})
            if link is not None:
                columns |= {"address": link.address, "address6": link.address6}
            await update(db, "vms", vm_id, columns)
            if not state.alive:
                await db.execute("DELETE FROM live_vmms WHERE vm_id = ?", (vm_id,))
            elif vmm is not None:
                await insert(db, "live_vmms", _live_columns(vm_id, vmm))
            if completes:
                await journal.close(db, op_id, Resource(ResourceKind.VM, vm_id))
            moved = await _get(db, vm_id)
            await self._events.tell(db, of_move(vm, moved, cause, op_id))
            return moved

    async def note_sleep_error(self, vm_id: str, error: str, op_id: str = "") -> None:
        async with self._change(vm_id) as db:
            await update(db, "vms", vm_id, {"error": error})
            await self._events.tell(db, [of_vm(EventKind.VM_SLEEP_FAILED, await _get(db, vm_id), op_id, message=error)])

    async def rest_on(self, vm_id: str, snapshot_id: str, settings: VmSettings) -> None:
        async with self._change(vm_id) as db, self.within_quota(db, (await self.get(vm_id)).owner):
            before = await _get(db, vm_id)
            await former.remember(db, vm_id)
            columns: dict[str, Any] = {"snapshot_id": snapshot_id}
            if settings != before.settings:
                columns |= {"settings": encoded(settings), "generation": before.generation + 1}
            try:
                await update(db, "vms", vm_id, columns)
            except sqlite3.IntegrityError as error:
                raise _why_not(error, replace(before, snapshot_id=snapshot_id)) from None

    async def tell_restored(self, vm_id: str, op_id: str = "") -> None:
        async with self._database.transaction() as db:
            vm = await _get(db, vm_id)
            await self._events.tell(db, [of_vm(EventKind.VM_RESTORED, vm, op_id, snapshot=vm.snapshot_id)])

    async def tell_stall(self, vm_id: str, *, stalled: bool) -> None:
        kinds = (EventKind.VM_DISK_ROOM, EventKind.VM_DISK_FULL)
        async with self._database.transaction() as db:
            vm = await _find(db, vm_id)
            last = await fetch_one(
                db,
                "SELECT kind FROM events WHERE resource_id = ? AND kind IN (?, ?) ORDER BY cursor DESC LIMIT 1",
                vm_id,
                *(kind.name for kind in kinds),
            )
            told = last is not None and last["kind"] == EventKind.VM_DISK_FULL.name
            if vm is not None and told != stalled:
                await self._events.tell(db, [of_vm(kinds[stalled], vm)])

    async def delete(self, vm_id: str, op_id: str = "") -> None:
        async with self._change(vm_id) as db:
            vm = await _find(db, vm_id)
            if vm is not None:
                await self._events.tell(db, of_deletion(vm, op_id))
            await db.execute("DELETE FROM vms WHERE id = ?", (vm_id,))
            await networks.forget_empty(db)

    async def kept_by_a_call(self, vm_id: str) -> None:
        async with self._database.transaction() as db:
            await db.execute("INSERT OR REPLACE INTO keepers (vm_id) SELECT id FROM vms WHERE id = ?", (vm_id,))

    async def keepers(self) -> list[tuple[str, Keeper | None]]:
        found = await self._database.read("SELECT vm_id, pid, start_time FROM keepers")
        return [(row["vm_id"], None if row["pid"] is None else Keeper(row["pid"], row["start_time"])) for row in found]

    def now(self, vm_id: str) -> Vm | None:
        row = self._database.rows.execute(f"{_SELECT} WHERE id = ?", (vm_id,)).fetchone()
        return None if row is None else _vm_of(row)

    async def get(self, vm_id: str) -> Vm:
        if (vm := self.now(vm_id)) is None:
            raise references.not_found(KIND, vm_id)
        return vm

    async def exact(self, reference: Reference) -> Vm:
        return _vm_of(references.exact(self._database.rows, KIND, reference))

    async def find(self, reference: Reference) -> Vm:
        return _vm_of(references.found(self._database.rows, KIND, reference))

    async def all(self) -> list[Vm]:
        return [_vm_of(row) for row in await self._database.read(f"{_SELECT} ORDER BY created_at, id")]

    async def of(self, caller: Caller, *, all_users: bool = False) -> list[Vm]:
        if all_users:
            caller.check_all_users()
            return await self.all()
        return [_vm_of(row) for row in await self._database.read(_OF_OWNER, caller.uid)]

    async def slot(self, vm_id: str) -> int | None:
        row = self._database.rows.execute("SELECT slot FROM vms WHERE id = ?", (vm_id,)).fetchone()
        return None if row is None else row["slot"]

    def connected(self, vm_id: str = "") -> list[Vm]:
        sql = f"{_SELECT} WHERE address != '' AND ?1 IN ('', id)"
        return [_vm_of(row) for row in self._database.rows.execute(sql, (vm_id,))]

    async def token(self, vm_id: str) -> bytes:
        row = self._database.rows.execute("SELECT token FROM vms WHERE id = ?", (vm_id,)).fetchone()
        if row is None:
            raise references.not_found(KIND, vm_id)
        return bytes(row["token"])

    @asynccontextmanager
    async def within_quota(self, db: aiosqlite.Connection, owner: int | None) -> AsyncIterator[None]:
        """What is done in the context, in a transaction, is refused when it gives the owner too much (None: can't)."""
        quota = NO_LIMITS if owner is None else self._quota_of(owner)
        if owner is None or quota == NO_LIMITS:
            yield
            return
        before = await _use(db, owner)
        yield
        quota.check(before, await _use(db, owner))

    @asynccontextmanager
    async def _change(self, vm_id: str) -> AsyncIterator[aiosqlite.Connection]:
        try:
            async with self._database.transaction() as db:
                yield db
        finally:
            for watch in self.watchers:
                watch(vm_id)


def recorded_vms(path: Path) -> set[str] | None:
    """Ids of all VMs; none where there is no database, and None where it can't be read."""
    if not path.exists():
        return set()
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
            return {row[0] for row in db.execute("SELECT id FROM vms")}
    except sqlite3.Error:
        return None


def _why_not(error: sqlite3.IntegrityError, vm: Vm) -> IngleError:
    if "vms.name" in str(error):
        return former.name_taken(vm.name)
    if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
        if vm.snapshot_id:
            return NotFound(Reason.SNAPSHOT_NOT_FOUND, "the snapshot was deleted meanwhile", "ingle snapshot list")
        return NotFound(Reason.IMAGE_NOT_FOUND, "the image or kernel was deleted meanwhile", "ingle image list")
    return HostProblem(Reason.INTERNAL, f"VM {vm.name!r} can't be stored: {error}")


async def _get(db: aiosqlite.Connection, vm_id: str) -> Vm:
    vm = await _find(db, vm_id)
    if vm is None:
        raise references.not_found(KIND, vm_id)
    return vm


async def _find(db: aiosqlite.Connection, vm_id: str) -> Vm | None:
    row = await fetch_one(db, f"{_SELECT} WHERE id = ?", vm_id)
    return None if row is None else _vm_of(row)


async def _use(db: aiosqlite.Connection, owner: int) -> Use:
    ((snapshots,),) = await db.execute_fetchall(_SNAPSHOTS_OF_OWNER, (owner,))
    return Use.of(map(_vm_of, await db.execute_fetchall(_OF_OWNER, (owner,)))) + Use(disk_bytes=snapshots)


def _vm_of(found: sqlite3.Row) -> Vm:
    """A row of _SELECT."""
    row = _Row._make(found)
    return Vm(
        id=row.id,
        name=row.name,
        created_at=time_of(row.created_at),
        settings=decoded(row.settings),
        state=VmState(row.state),
        state_since=time_of(row.state_since),
        asleep_since=None if row.asleep_since is None else time_of(row.asleep_since),
        disk_generation=row.disk_generation,
        error=row.error,
        slot=row.slot,
        address=row.address,
        address6=row.address6,
        generation=row.generation,
        owner=row.owner,
        snapshot_id=row.snapshot_id or "",
        vmm=None if row.pid is None else _live_vmm_of(row, row.pid),
    )


def _live_vmm_of(row: _Row, pid: int) -> LiveVmm:
    return LiveVmm(
        pid=pid,
        start_time=row.start_time,
        acceleration=Acceleration(row.acceleration),
        started_at=time_of(row.started_at),
        boot_id=row.boot_id,
        warm_key=row.warm_key,
    )


def _columns_of_move(vm: Vm, state: VmState) -> dict[str, Any]:
    """What a change of state says of itself."""
    now = micros(datetime.now(UTC))
    stays_asleep = state.asleep or (vm.state is VmState.HIBERNATED and state is VmState.STARTING)
    since = now if vm.asleep_since is None else micros(vm.asleep_since)
    columns = {
        "state": state.value,
        "state_since": now,
        "asleep_since": since if stays_asleep else None,
        "disk_generation": vm.disk_generation + outdates_memory(vm.state, state),
    }
    return columns if state.alive or stays_asleep else columns | {"address": "", "address6": ""}


def _live_columns(vm_id: str, vmm: LiveVmm) -> dict[str, Any]:
    """The columns of `live_vmms`."""
    return {
        "vm_id": vm_id,
        "pid": vmm.pid,
        "start_time": vmm.start_time,
        "acceleration": vmm.acceleration.value,
        "started_at": micros(vmm.started_at),
        "boot_id": vmm.boot_id,
        "warm_key": vmm.warm_key,
    }
