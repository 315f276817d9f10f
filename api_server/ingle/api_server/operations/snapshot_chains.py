"""Snapshots that are stored against others: which, and that they are whole where they are used."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ingle.api_server.model.caller import Reference
from ingle.api_server.model.errors import Conflict, InvalidArgument, Reason
from ingle.api_server.model.snapshot import MOST_DEPTH, Snapshot, SnapshotState
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.store.snapshots import SnapshotStore


@dataclass(frozen=True, slots=True)
class Place:
    """Where a snapshot is to be put: see steps.snapshot_target.Making, whose fields these are."""

    against: str = ""
    wished: bool = False
    full: bool = False


class SnapshotChains:
    """A chain is a snapshot and behind it all that it needs."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._changing = asyncio.Lock()

    @asynccontextmanager
    async def steady(self, snapshot_id: str) -> AsyncIterator[Sequence[Snapshot]]:
        """The chain of that one; while the context is open none is flattened, and none other is steady. Raises
        NotFound."""
        async with self._changing:
            yield await self._store.chain(snapshot_id)

    async def place(self, vm: Vm, parent: Reference | None, *, full: bool) -> Place:
        """Where the next one of a VM goes: against `parent` if that is wished; else against the newest one of the VM
        that has a name, or what the VM was made of or put back to, where there is one that is not too deep.

        Raises InvalidArgument, NotFound, Conflict(WRONG_STATE)."""
        if parent is not None:
            if full:
                raise InvalidArgument("a snapshot with a parent is not full: one or the other", field="parent")
            return Place((await self._wished(vm, parent)).id, wished=True)
        if full:
            return Place(full=True)
        return await self._best(vm)

    async def beneath(self, vm: Vm) -> Place:
        """For what is used at once and has its memory whole: its disk rests on what the VM's does."""
        deep = bool(vm.snapshot_id) and _too_deep(await self._store.get(vm.snapshot_id))
        return Place(full=deep)

    async def _best(self, vm: Vm) -> Place:
        if (await self.beneath(vm)).full:
            return Place(full=True)
        own = [each for each in await self._store.all() if each.vm_id == vm.id and each.name and _alike(each, vm)]
        if vm.snapshot_id:
            own.insert(0, await self._store.get(vm.snapshot_id))
        if not own:
            return Place()
        return Place(full=True) if _too_deep(own[-1]) else Place(own[-1].id)

    async def _wished(self, vm: Vm, wish: Reference) -> Snapshot:
        parent = await self._store.exact(wish)
        parent.check_ready()
        if parent.owner != vm.owner or not _alike(parent, vm):
            raise InvalidArgument(
                f"{parent.told} has another image, or another kind of disk, than VM {vm.name!r}: nothing can be stored "
                "against it",
                f"ingle snapshot list --filter vm={vm.name}",
                field="parent",
            )
        if _too_deep(parent):
            raise Conflict(
                Reason.WRONG_STATE,
                f"{parent.told} needs {parent.depth} others already, and {MOST_DEPTH} is the most that one may need",
                f"ingle snapshot flatten {parent.called_by(wish.caller)}",
            )
        return parent


def _too_deep(parent: Snapshot) -> bool:
    return parent.depth >= MOST_DEPTH


def _alike(snapshot: Snapshot, vm: Vm) -> bool:
    """Whether the disks of both are changes to one image, of one kind."""
    then, now = snapshot.settings, vm.settings
    return (
        snapshot.state is SnapshotState.READY
        and then.image_id == now.image_id
        and then.disk_backend == now.disk_backend
    )
