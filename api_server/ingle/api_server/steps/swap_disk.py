"""Let the new disk take the place of the VM's."""

from collections.abc import Awaitable, Callable

from ingle.api_server.model.snapshot import restored
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.target import Restoring, VmTarget


class SwapDisk:
    """First the snapshot is the VM's, so that it can't go; then its guest is ended, without being asked; then the disks
    change places. What the VM was is kept until the operation is over: its row, its disk, and the memory of one that
    has hibernated. Undo, also by another server, puts all of that back."""

    name = "swap-disk"
    text = "putting the disk back"

    def __init__(
        self, vms: VmStore, snapshots: SnapshotStore, files: VmFiles, end: Callable[[str, str], Awaitable[Vm]]
    ) -> None:
        """`end` ends the VMM of a VM, by its id and the operation's, and leaves its files alone."""
        self._vms = vms
        self._snapshots = snapshots
        self._files = files
        self._end = end

    async def run(self, target: Restoring) -> None:
        vm, snapshot = await self._vms.get(target.vm_id), await self._snapshots.get(target.snapshot_id)
        await self._vms.rest_on(vm.id, snapshot.id, restored(vm.settings, snapshot.settings))
        await self._end(target.vm_id, target.op_id)
        await self._files.swap_disk(target.paths, target.snapshot_id)

    async def undo(self, target: VmTarget) -> None:
        if await self._vms.changed(target.vm_id) is not None:
            await self._files.put_disk_back(target.paths)  # before the store says which one is there
            await self._vms.restore(target.vm_id, target.op_id)
