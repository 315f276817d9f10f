"""Snapshots: make them, hand them out, delete them."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.errors import Conflict, HostProblem, IngleError, NotFound, Reason
from ingle.api_server.model.ids import new_vm_id, new_vm_name
from ingle.api_server.model.labels import check_labels
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.snapshot import Snapshot, check_snapshot_name
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.disk_room import DiskRoom, likely_memory
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.snapshot_chains import Place, SnapshotChains
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.engine import Engine, engine_of
from ingle.api_server.ports.snapshot_files import SnapshotFiles, Whole
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.delete_snapshot import DeleteSnapshot
from ingle.api_server.steps.flatten_snapshot import Flattening, FlattenSnapshot
from ingle.api_server.steps.snapshot_target import Making, SnapshotTarget
from ingle.api_server.steps.target import SavedGuest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotWish:
    """What a snapshot shall be; an empty name is made up."""

    name: str = ""
    disk_only: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    """Against which one it is stored; empty: what saves room."""

    full: bool = False
    """Whether it shall need no other."""


@dataclass(frozen=True, slots=True)
class Usable:
    """What starts of a snapshot: the directory with the disk, and the guest that goes on; None: it boots."""

    disk: Path
    guest: SavedGuest | None


@dataclass(frozen=True, slots=True)
class Deleted:
    """What came of it."""

    used_by: tuple[str, ...]
    """What keeps it, without its name."""

    freed_bytes: int


class Snapshots:
    """All of them."""

    def __init__(
        self,
        *,
        operations: Operations,
        vms: VmStore,
        snapshots: SnapshotStore,
        journal: Journal,
        clock: Clock,
        fleet: Fleet,
        files: VmFiles,
        snapshot_files: SnapshotFiles,
        engines: Mapping[str, Engine],
        backends: Mapping[str, DiskBackend],
        kernels: Kernels,
        room: DiskRoom,
        chains: SnapshotChains,
        make: Sequence[Step[Making]],
        flatten: FlattenSnapshot,
        waken: Callable[[str], Awaitable[None]],
    ) -> None:
        """`waken` returns when a VM, by its id, is awake that was asleep."""
        self._operations = operations
        self._vms = vms
        self._snapshots = snapshots
        self._journal = journal
        self._clock = clock
        self._fleet = fleet
        self._files = files
        self._snapshot_files = snapshot_files
        self._engines = engines
        self._backends = backends
        self._kernels = kernels
        self._room = room
        self._chains = chains
        self._make = make
        self._flatten = flatten
        self._waken = waken
        self._kept: Counter[str] = Counter()
        self._delete = DeleteSnapshot(snapshots, snapshot_files)

    @property
    def steps(self) -> tuple[Step[Any], ...]:
        """Every step there is, for recovery to find by name."""
        return (*self._make, self._flatten, self._delete)

    async def create(self, op_id: str, reference: Reference, wish: SnapshotWish) -> Ongoing[Snapshot]:
        """Begin to make one of that VM. Everything that can be refused is refused here, before anything changes."""
        vm = await self._vms.exact(reference)
        if wish.name:
            check_snapshot_name(wish.name)
            await self._check_name_free(Reference(Caller(vm.owner), wish.name))
        check_labels(wish.labels)
        parent = Reference(reference.caller, wish.parent) if wish.parent else None
        place = await self._chains.place(vm, parent, full=wish.full)
        snapshot = self.plan(vm, wish.name or new_vm_name(), disk_only=wish.disk_only, labels=wish.labels)

        async def work(progress: Progress) -> Snapshot:
            return await self.make(snapshot, vm, progress, place)

        return await self._operations.begin(
            op_id, reference.caller.uid, OperationKind.CREATE_SNAPSHOT, work, snapshot.id
        )

    def plan(self, vm: Vm, name: str, *, disk_only: bool, labels: Mapping[str, str] | None = None) -> Snapshot:
        """What a snapshot of that VM is to be: one that is asleep wakes for its memory. Raises Conflict(WRONG_STATE),
        HostProblem for an engine that keeps no memory, or where there is no room."""
        if not vm.state.idle and not vm.state.asleep and vm.state is not VmState.RUNNING:
            raise Conflict(
                Reason.WRONG_STATE,
                f"VM {vm.name!r} is {vm.state.value}: a snapshot is taken of one that runs, or that is stopped",
                f"ingle vm start {vm.name}",
            )
        memory = not vm.state.idle and not disk_only
        if memory and not engine_of(vm, self._engines).info.saves:
            raise HostProblem(
                Reason.DEPENDENCY_MISSING,
                f"engine {vm.settings.engine} keeps no memory of a guest",
                f"ingle snapshot create --disk {vm.name}",
            )
        disk = self._backends[vm.settings.disk_backend].disk_path(self._files.paths(vm.id).state)
        size = self._files.allocated_bytes(disk) + (likely_memory(vm, self._fleet.vmm(vm.id)) if memory else 0)
        self._room.check_snapshot(size)
        return Snapshot(
            id=new_vm_id(),
            name=name,
            owner=vm.owner,
            created_at=self._clock.now(),
            vm_id=vm.id,
            vm_name=vm.name,
            settings=vm.settings,
            memory=memory,
            parent_id=vm.snapshot_id,
            labels=labels or {},
            size_bytes=size,
        )

    async def make(self, snapshot: Snapshot, vm: Vm, progress: Progress, place: Place | None = None) -> Snapshot:
        """The same as part of another operation: a snapshot that was planned. `place`: unless told, it is used at
        once."""
        if vm.state is VmState.PAUSED or (vm.state.asleep and snapshot.memory):
            progress.stage("wake", f"waking {vm.name}")
            await self._waken(vm.id)
            vm = await self._vms.get(vm.id)
        kernel = await self._kernels.get(vm.settings.kernel_id)
        if place is None:
            place = await self._chains.beneath(vm)
        # Its row says from the first which one it needs, which so stays.
        reserved = replace(snapshot, parent_id=place.against or vm.snapshot_id)
        target = Making(
            progress.operation.id,
            snapshot.id,
            reserved,
            vm,
            kernel,
            against=place.against,
            wished=place.wished,
            full=place.full,
        )
        with self.kept(vm.snapshot_id):
            await pipeline.run(self._make, target, self._journal, progress.stage)
        return target.snapshot

    async def usable(self, snapshot: Snapshot, verb: str, *, cold: bool) -> Usable:
        """What starts of it by `verb`, as it is typed without the snapshot, has its disk, and goes on with its guest,
        if there is one in memory and it is not to be `cold`. Raises BadFile(SNAPSHOT_INVALID) for a snapshot that is
        not what it was, or rests on one that is not, HostProblem(SNAPSHOT_INCOMPATIBLE) for a memory of another engine
        or processor, HostProblem(DISK_FULL)."""
        memory = snapshot.memory and not cold
        if memory:
            kernel = await self._kernels.get(snapshot.settings.kernel_id)
            like = self.like(snapshot)
            engine = engine_of(like, self._engines)
            boot = f"boot its disk: ingle vm {verb} {snapshot.name or snapshot.id}"
            snapshot.check_memory(await engine.memory_key(like, kernel, snapshot.acceleration), boot)
        whole = await self.whole(snapshot)
        if not memory:
            return Usable(whole.disk, None)
        token = await self._snapshots.token(snapshot.id)
        return Usable(whole.disk, SavedGuest(whole.memory, token, snapshot.acceleration))

    async def whole(self, snapshot: Snapshot) -> Whole:
        """Its files as a VMM wants them, verified; for as long as it is `kept`. Raises BadFile(SNAPSHOT_INVALID),
        HostProblem(DISK_FULL)."""
        async with self._chains.steady(snapshot.id) as chain:
            await self._snapshot_files.verify(chain)
            if needed := self._snapshot_files.whole_bytes(chain):
                self._room.check_snapshot(needed)
            return await self._snapshot_files.whole(chain)

    async def flatten(self, op_id: str, reference: Reference) -> Ongoing[Snapshot]:
        """Begin to make one that needs no other. Raises Conflict: IN_USE, WRONG_STATE; HostProblem(DISK_FULL)."""
        snapshot = await self._snapshots.exact(reference)
        snapshot.check_ready()

        async def work(progress: Progress) -> Snapshot:
            self._check_not_kept(snapshot)
            async with self._chains.steady(snapshot.id) as chain:
                if not snapshot.parent_id:
                    return chain[0]
                self._room.check_snapshot(sum(each.size_bytes for each in chain))
                progress.stage("verify", f"verifying {snapshot.told}")
                await self._snapshot_files.verify(chain)
                flat = replace(chain[0], parent_id="")
                target = Flattening(progress.operation.id, snapshot.id, chain, flat)
                await pipeline.run([self._flatten], target, self._journal, progress.stage)
            await self.drop_unused(progress.operation.id)  # what it alone has rested on
            return target.flat

        return await self._operations.begin(
            op_id, reference.caller.uid, OperationKind.FLATTEN_SNAPSHOT, work, snapshot.id
        )

    def like(self, snapshot: Snapshot) -> Vm:
        """A VM that it could be of."""
        return Vm(
            id=snapshot.vm_id,
            name=snapshot.vm_name,
            created_at=snapshot.created_at,
            settings=snapshot.settings,
            state=VmState.STOPPED,
            owner=snapshot.owner,
        )

    async def delete(self, op_id: str, reference: Reference) -> Ongoing[Deleted]:
        """Begin to delete one. Raises Conflict: IN_USE for one of which
        something is being made, WRONG_STATE for one that is being made."""
        snapshot = await self._snapshots.exact(reference)
        snapshot.check_ready()

        async def work(progress: Progress) -> Deleted:
            self._check_not_kept(snapshot)
            # Half a deletion can't be undone, so a cancellation that comes now comes too late.
            return await pipeline.uninterrupted(self._delete_wholly(snapshot.id, progress))

        return await self._operations.begin(
            op_id, reference.caller.uid, OperationKind.DELETE_SNAPSHOT, work, snapshot.id
        )

    async def _delete_wholly(self, snapshot_id: str, progress: Progress) -> Deleted:
        chain = await self._snapshots.chain(snapshot_id)
        await self._delete_now(snapshot_id, progress.operation.id, progress)
        await self.drop_unused(progress.operation.id)  # what it alone has rested on
        left = {each.id: each for each in await self._snapshots.all()}
        freed = sum(each.size_bytes for each in chain if each.id not in left)
        return Deleted(left[snapshot_id].used_by if snapshot_id in left else (), freed)

    def _check_not_kept(self, snapshot: Snapshot) -> None:
        if self._kept[snapshot.id]:
            raise Conflict(
                Reason.IN_USE,
                f"{snapshot.told} is kept: something is being made of it, or it is being exported",
                "when that has ended, again; ingle operation list --filter state=running",
            )

    @contextmanager
    def kept(self, snapshot_id: str) -> Iterator[None]:
        """For as long as the context is open it is not among those that nothing rests on: something is about to."""
        self._kept[snapshot_id] += 1
        try:
            yield
        finally:
            self._kept[snapshot_id] -= 1

    async def drop_unused(self, op_id: str) -> None:
        """Delete those that go with their last users, when these are gone, and what was made for users that are. What
        fails is tried again next time."""
        try:
            for snapshot in reversed(await self._snapshots.all()):  # the newer ones rest on the older ones
                if not snapshot.run_by and not self._kept[snapshot.id]:
                    await self._snapshot_files.forget_whole(snapshot.id)
                if snapshot.anonymous and not self._kept[snapshot.id]:
                    await self._drop_if_unused(snapshot.id, op_id)
        except IngleError as error:
            log.warning("a snapshot that nothing rests on stays: %s", error.message)

    async def _drop_if_unused(self, snapshot_id: str, op_id: str) -> None:
        try:
            now = await self._snapshots.get(snapshot_id)
            if not now.used_by:
                now.check_ready()
                await self._delete_now(snapshot_id, op_id, None)
        except (Conflict, NotFound) as error:  # it has come to be used, or somebody else has dropped it
            log.info("a snapshot is not dropped: %s", error.message, extra={"snapshot": snapshot_id})

    async def _delete_now(self, snapshot_id: str, op_id: str, progress: Progress | None) -> None:
        target = SnapshotTarget(op_id, snapshot_id)
        announce = (lambda name, text: ()) if progress is None else progress.stage
        await pipeline.run([self._delete], target, self._journal, announce)

    async def _check_name_free(self, wish: Reference) -> None:
        with suppress(NotFound):
            await self._snapshots.exact(wish)
            raise Conflict(
                Reason.NAME_TAKEN,
                f"there is a snapshot named {wish.text!r} already",
                f"ingle snapshot show {wish.text}",
            )
