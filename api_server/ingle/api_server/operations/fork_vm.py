"""Forks: VMs that go on where a snapshot is, or another VM is right now."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.errors import Conflict, Reason
from ingle.api_server.model.ids import new_vm_id, new_vm_name
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.quota import Use
from ingle.api_server.model.snapshot import Snapshot, fork_names, forked
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.snapshots import Snapshots
from ingle.api_server.operations.start_vm import StartPipelines
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.engine import Engine, engine_of
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.delete import Delete
from ingle.api_server.steps.target import Start, VmTarget

_AT_ONCE = 4
"""Of the forks of one call, as many as are started at the same time: more would only wait for processors."""


@dataclass(frozen=True, slots=True)
class ForkWish:
    """How many, what they are called, and whether they boot whatever memory there is; see model.snapshot.fork_names."""

    count: int = 1
    names: str = ""
    cold: bool = False


@dataclass(frozen=True, slots=True)
class Forked:
    """What came of it. `pause_seconds`: how long the VM that was forked stood still; None where none had to."""

    vms: tuple[Vm, ...]
    pause_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Forking:
    """Forks under way, and the ids that they get."""

    ongoing: Ongoing[Forked]
    vm_ids: tuple[str, ...]


class ForkVm:
    """Makes all of the forks that are asked for, or none."""

    def __init__(
        self,
        *,
        operations: Operations,
        vms: VmStore,
        store: SnapshotStore,
        snapshots: Snapshots,
        journal: Journal,
        clock: Clock,
        fleet: Fleet,
        files: VmFiles,
        engines: Mapping[str, Engine],
        images: Images,
        kernels: Kernels,
        pipelines: StartPipelines,
        delete: Delete,
        room: DiskRoom,
    ) -> None:
        self._operations = operations
        self._vms = vms
        self._store = store
        self._snapshots = snapshots
        self._journal = journal
        self._clock = clock
        self._fleet = fleet
        self._files = files
        self._engines = engines
        self._images = images
        self._kernels = kernels
        self._pipelines = pipelines
        self._delete = delete
        self._room = room

    async def of_snapshot(self, op_id: str, reference: Reference, wish: ForkWish) -> Forking:
        """Begin to make forks of a snapshot. All that can be refused is refused here, before anything changes."""
        snapshot = await self._store.exact(reference)
        snapshot.check_ready()
        return await self._begin(op_id, reference.caller.uid, snapshot, None, wish)

    async def of_vm(self, op_id: str, reference: Reference, wish: ForkWish) -> Forking:
        """The same of a VM as it will be in a moment, when a snapshot of it is taken that goes with the last fork."""
        vm = await self._vms.exact(reference)
        snapshot = self._snapshots.plan(vm, "", disk_only=wish.cold)
        return await self._begin(op_id, reference.caller.uid, snapshot, vm, wish)

    async def _begin(self, op_id: str, uid: int, snapshot: Snapshot, source: Vm | None, wish: ForkWish) -> Forking:
        names = fork_names(wish.names, wish.count) or [new_vm_name() for _ in range(wish.count)]
        await self._check_free(snapshot.owner, names)
        settings = forked(snapshot.settings)
        one = Use(vms=1, vcpus=settings.vcpus, memory_bytes=settings.memory_bytes, disk_bytes=settings.disk_bytes)
        taken = Use(disk_bytes=0 if source is None else snapshot.size_bytes)  # one that is there is counted already
        await self._vms.check_room(snapshot.owner, sum([one] * wish.count, start=taken))
        self._room.check_start()
        ids = [new_vm_id() for _ in names]
        now = self._clock.now()
        vms = [
            Vm(vm_id, name, now, settings, VmState.CREATING, owner=snapshot.owner, snapshot_id=snapshot.id)
            for vm_id, name in zip(ids, names, strict=True)
        ]
        for vm in vms:
            engine_of(vm, self._engines).check(self._files.paths(vm.id), settings.ports)

        async def work(progress: Progress) -> Forked:
            try:
                with self._snapshots.kept(snapshot.id):
                    return await self._make(snapshot, source, vms, progress, cold=wish.cold)
            except BaseException:
                await pipeline.uninterrupted(self._snapshots.drop_unused(progress.operation.id))
                raise

        return Forking(await self._operations.begin(op_id, uid, OperationKind.FORK_VM, work, ids[0]), tuple(ids))

    async def _make(
        self, snapshot: Snapshot, source: Vm | None, vms: Sequence[Vm], progress: Progress, *, cold: bool
    ) -> Forked:
        pause = None
        if source is not None:
            snapshot = await self._snapshots.make(snapshot, source, progress)
            pause = snapshot.pause_seconds or None
        try:
            return Forked(await self._fork(snapshot, vms, progress, cold=cold), pause)
        except BaseException:
            await pipeline.uninterrupted(self._take_back(vms, progress))
            raise

    async def _fork(self, snapshot: Snapshot, vms: Sequence[Vm], progress: Progress, *, cold: bool) -> tuple[Vm, ...]:
        progress.stage("verify", f"verifying {snapshot.told}")
        usable = await self._snapshots.usable(snapshot, "fork --cold --snapshot", cold=cold)
        image = await self._images.get(snapshot.settings.image_id)
        kernel = await self._kernels.get(snapshot.settings.kernel_id)
        free = asyncio.Semaphore(_AT_ONCE)
        steps = (*self._pipelines.make, *(self._pipelines.start if usable.guest is None else self._pipelines.go_on))

        async def one(vm: Vm) -> Vm:
            target = Start(
                op_id=progress.operation.id,
                vm_id=vm.id,
                paths=self._files.paths(vm.id),
                vm=vm,
                image=image,
                kernel=kernel,
                token=secrets.token_bytes(32),
                base=usable.disk,
                created=True,
            )
            if usable.guest is not None:
                usable.guest.put_into(target)
            async with free, self._fleet.lock(vm.id):
                progress.stage("fork", f"making {vm.name}")
                await pipeline.run(steps, target, self._journal, lambda name, text: progress.operation.stages)
                self._fleet.attach(target.vm, target.live_vmm)
            return target.vm

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(vm)) for vm in vms]
        return tuple(task.result() for task in tasks)

    async def _take_back(self, vms: Sequence[Vm], progress: Progress) -> None:
        """Those that are complete, when another one could not be made."""
        there = {vm.id for vm in await self._vms.all()}
        for vm in vms:
            if vm.id not in there:
                continue
            async with self._fleet.lock(vm.id):
                target = VmTarget(op_id=progress.operation.id, vm_id=vm.id, paths=self._files.paths(vm.id))
                try:
                    await pipeline.run([self._delete], target, self._journal, lambda name, text: ())
                finally:
                    await self._fleet.detach(vm.id)

    async def _check_free(self, owner: int, names: Sequence[str]) -> None:
        taken = {vm.name for vm in await self._vms.of(Caller(owner))}
        for name in names:
            if name in taken:
                raise Conflict(Reason.NAME_TAKEN, f"there is a VM named {name!r} already", f"ingle vm show {name}")
