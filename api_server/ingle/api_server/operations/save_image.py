"""Images of what is on the disks of VMs."""

from collections.abc import Mapping
from pathlib import Path

from ingle.api_server.model.caller import Reference
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Image
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.snapshots import Snapshots
from ingle.api_server.pipeline import uninterrupted
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.store.vms import VmStore


class SaveImage:
    """By a snapshot of the disk that nobody sees: the VM goes on, and what is read doesn't change meanwhile."""

    def __init__(
        self,
        operations: Operations,
        vms: VmStore,
        snapshots: Snapshots,
        images: Images,
        backends: Mapping[str, DiskBackend],
    ) -> None:
        self._operations = operations
        self._vms = vms
        self._snapshots = snapshots
        self._images = images
        self._backends = backends

    async def begin(self, op_id: str, reference: Reference, name: str) -> Ongoing[Image]:
        """Begin to make one. What can be refused is refused here, before anything changes."""
        vm, caller = await self._vms.exact(reference), reference.caller
        source = f"VM {vm.name}"
        await self._images.check_sent(name, source, caller)
        snapshot = self._snapshots.plan(vm, "", disk_only=True)
        backend = self._backends[vm.settings.disk_backend]

        async def save(progress: Progress) -> Image:
            await self._snapshots.make(snapshot, vm, progress)
            whole = await self._snapshots.whole(snapshot)
            config = (await self._images.get(vm.settings.image_id)).config

            async def write(target: Path) -> None:
                await backend.to_raw(backend.disk_path(whole.disk), target)

            return await self._images.promote(name, source, write, config, progress, caller)

        async def work(progress: Progress) -> Image:
            try:
                with self._snapshots.kept(snapshot.id):
                    return await save(progress)
            finally:
                await uninterrupted(self._snapshots.drop_unused(progress.operation.id))

        return await self._operations.begin(op_id, caller.uid, OperationKind.SAVE_IMAGE, work, name)
