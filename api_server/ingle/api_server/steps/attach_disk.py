"""Have the host give the VM its root disk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ingle.api_server.model.errors import NotFound
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.root_disk import image_file
from ingle.api_server.steps.target import Start, VmTarget


class DiskBases:
    """What disks rest on, as it is written down where no VMM can write: what a disk says of itself, its VMM may have
    changed."""

    def __init__(self, images: Library, snapshots: SnapshotStore, snapshot_files: SnapshotFiles) -> None:
        self._images = images
        self._snapshots = snapshots
        self._snapshot_files = snapshot_files

    async def of(self, vm: Vm, backend: DiskBackend) -> tuple[Path, ...]:
        """All files, down to the image's."""
        bases = []
        snapshot_id = vm.snapshot_id
        while snapshot_id:
            bases.append(backend.disk_path(self._snapshot_files.path(snapshot_id)))
            snapshot_id = (await self._snapshots.get(snapshot_id)).parent_id
        return (*bases, image_file(self._images, vm.settings.image_id))


class AttachDisk:
    """A disk that is a file is there already: its VMM opens it."""

    name = "attach-disk"
    text = "attaching the root disk"

    def __init__(self, backends: Mapping[str, DiskBackend], vms: VmStore, bases: DiskBases) -> None:
        self._backends = backends
        self._vms = vms
        self._bases = bases

    async def run(self, target: Start) -> None:
        backend = self._backends[target.vm.settings.disk_backend]
        disk = await backend.attach(target.vm, target.paths.state)
        target.root_disk = replace(disk, bases=await self._bases.of(target.vm, backend))

    async def undo(self, target: VmTarget) -> None:
        if isinstance(target, Start):
            await self._backends[target.vm.settings.disk_backend].detach(target.vm_id)
        else:
            await detach_disk(target.vm_id, self._backends, self._vms)


async def detach_disk(vm_id: str, backends: Mapping[str, DiskBackend], vms: VmStore) -> None:
    """From the id alone. What is left of a VM that nobody knows any more, a starting server's reconciling removes."""
    try:
        vm = await vms.get(vm_id)
    except NotFound:
        return
    if vm.id == vm_id:  # and no other with such a name
        await backends[vm.settings.disk_backend].detach(vm_id)
