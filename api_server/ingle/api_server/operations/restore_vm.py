"""Put a VM back to a snapshot of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Reference
from ingle.api_server.model.errors import IngleError, InvalidArgument
from ingle.api_server.model.operation import Failure, OperationKind
from ingle.api_server.model.quota import Use
from ingle.api_server.model.snapshot import Snapshot, restored
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.snapshots import Snapshots
from ingle.api_server.operations.start_vm import StartVm
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.memories import Memories
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.target import Restoring


class RestoreVm:
    """Its disk becomes what the snapshot has; then its guest goes on from the snapshot's memory, or boots. When that
    fails, or is cancelled, or the server is killed before, the VM is what it was: one that ran boots from the disk that
    it had, one that has hibernated does so again."""

    def __init__(
        self,
        *,
        operations: Operations,
        vms: VmStore,
        store: SnapshotStore,
        snapshots: Snapshots,
        journal: Journal,
        fleet: Fleet,
        files: VmFiles,
        memories: Memories,
        images: Library,
        start: StartVm,
        steps: Sequence[Step[Restoring]],
    ) -> None:
        self._operations = operations
        self._vms = vms
        self._store = store
        self._snapshots = snapshots
        self._journal = journal
        self._fleet = fleet
        self._files = files
        self._memories = memories
        self._images = images
        self._start = start
        self.steps: tuple[Step[Any], ...] = tuple(steps)

    async def restore(self, op_id: str, reference: Reference, wish: Reference, *, cold: bool) -> Ongoing[Vm]:
        """Begin to do it. Everything that can be refused is refused here, before anything changes."""
        vm = await self._vms.exact(reference)
        snapshot = await self._store.exact(wish)
        snapshot.check_ready()
        if snapshot.vm_id != vm.id:
            raise InvalidArgument(
                f"{snapshot.told} is of VM {snapshot.vm_name!r} ({snapshot.vm_id}), and not of {vm.name!r}",
                f"ingle vm fork --snapshot {snapshot.called_by(reference.caller)}",
                field="snapshot",
            )

        more = snapshot.settings.disk_bytes - vm.settings.disk_bytes
        await self._vms.check_room(vm.owner, Use(disk_bytes=max(0, more)))
        if _is_started(vm, goes_on=snapshot.memory and not cold):
            await self._start.check_again(replace(vm, settings=restored(vm.settings, snapshot.settings)))

        async def work(progress: Progress) -> Vm:
            with self._snapshots.kept(snapshot.id):
                return await self._restore(vm.id, snapshot, progress, cold=cold)

        return await self._operations.begin(op_id, reference.caller.uid, OperationKind.RESTORE_VM, work, vm.id)

    async def _restore(self, vm_id: str, snapshot: Snapshot, progress: Progress, *, cold: bool) -> Vm:
        progress.stage("verify", f"verifying {snapshot.told}")
        verb = f"restore --cold {(await self._vms.get(vm_id)).name}"
        usable = await self._snapshots.usable(snapshot, verb, cold=cold)
        async with self._fleet.lock(vm_id):
            vm = await self._vms.get(vm_id)
            target = Restoring(
                op_id=progress.operation.id,
                vm_id=vm_id,
                paths=self._files.paths(vm_id),
                vm=vm,
                snapshot_id=snapshot.id,
                base=usable.disk,
                image=self._images.path(snapshot.settings.image_id) / "rootfs.ext4",
                disk_bytes=snapshot.settings.disk_bytes,
            )
            if _is_started(vm, goes_on=usable.guest is not None):
                target.begin = partial(self._start.start_held, vm_id, progress, usable.guest)
            await self._put_back(vm, target, progress)
            await pipeline.uninterrupted(self._tidy(target))
        await self._snapshots.drop_unused(progress.operation.id)
        return await self._vms.get(vm_id)

    async def _put_back(self, vm: Vm, target: Restoring, progress: Progress) -> None:
        """The journal says of one that runs that it is to boot: whatever becomes of this, it runs afterwards."""
        reboots, boot = self._fleet.reboots, None
        if vm.state.alive:
            await reboots.add(vm.id)
            boot = reboots.op_id(vm.id)
        try:
            await pipeline.run(self.steps, target, self._journal, progress.stage)
        except BaseException as error:
            if boot is None or (self._operations.closing and _is_cancellation(error)):  # the next server boots it
                raise
            await pipeline.uninterrupted(self._boot_again(vm, boot, progress, error))
            raise
        if boot is not None:
            await pipeline.uninterrupted(reboots.end(vm.id, boot))

    async def _boot_again(self, vm: Vm, boot: str, progress: Progress, error: BaseException) -> None:
        try:
            await self._start.start_held(vm.id, progress)
        except Exception as again:
            told = f"{_told(error)}; and VM {vm.name!r}, as it was, can't be started: {_told(again)}"
            raise IngleError(
                Failure.of(pipeline.root_cause(error)).reason, told, f"ingle vm start {vm.name}"
            ) from error
        finally:
            await self._fleet.reboots.end(vm.id, boot)

    async def _tidy(self, target: Restoring) -> None:
        """There is no way back any more. What a server that is killed here leaves, the next one removes."""
        await self._files.drop_former_disk(target.paths)
        await self._memories.remove(target.paths)
        await self._vms.tell_restored(target.vm_id, target.op_id)


def _is_started(vm: Vm, *, goes_on: bool) -> bool:
    """Whether it runs when it was put back; `goes_on`: its guest does, from the snapshot's memory."""
    return goes_on or vm.state.up or vm.state is VmState.HIBERNATED


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(pipeline.root_cause(error), asyncio.CancelledError)


def _told(error: BaseException) -> str:
    return Failure.of(pipeline.root_cause(error)).message
