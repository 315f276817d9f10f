"""Make the disk that a VM is to have instead of its own."""

from collections.abc import Mapping

from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.root_disk import disk_of_snapshot
from ingle.api_server.steps.target import Restoring, VmTarget


class NewDisk:
    """Beside the one that it has, which is not touched yet."""

    name = "new-disk"
    text = "making the disk anew"

    def __init__(self, files: VmFiles, backends: Mapping[str, DiskBackend]) -> None:
        self._files = files
        self._backends = backends

    async def run(self, target: Restoring) -> None:
        settings = target.vm.settings
        directory = await self._files.begin_disk(target.paths, target.snapshot_id)
        backend = self._backends[settings.disk_backend]
        await disk_of_snapshot(backend, target.base, target.image, directory, target.disk_bytes)

    async def undo(self, target: VmTarget) -> None:
        await self._files.drop_new_disks(target.paths)
