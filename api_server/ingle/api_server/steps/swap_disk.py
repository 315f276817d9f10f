"""Let the new disk take the place of the VM's."""

from ingle.api_server.model.snapshot import restored
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.target import Restoring, VmTarget


class SwapDisk:
    """The snapshot is the VM's before its disk is, so that it can't go. What the disk was is lost then: undo, also by
    another server, goes on with it. By then no VMM has it."""

    name = "swap-disk"
    text = "putting the disk back"

    def __init__(self, vms: VmStore, snapshots: SnapshotStore, files: VmFiles) -> None:
        self._vms = vms
        self._snapshots = snapshots
        self._files = files

    async def run(self, target: Restoring) -> None:
        await self._rest_on(target, target.snapshot_id)
        target.swapped = True
        await self._files.swap_disk(target.paths, target.snapshot_id)

    async def undo(self, target: VmTarget) -> None:
        if isinstance(target, Restoring) and not target.swapped:
            return
        for snapshot_id in self._files.new_disks(target.paths):
            await self._rest_on(target, snapshot_id)
            await self._files.swap_disk(target.paths, snapshot_id)

    async def _rest_on(self, target: VmTarget, snapshot_id: str) -> None:
        vm, snapshot = await self._vms.get(target.vm_id), await self._snapshots.get(snapshot_id)
        settings = restored(vm.settings, snapshot.settings)
        await self._vms.rest_on(vm.id, snapshot_id, settings, target.op_id)
