"""Make the root disk. It lies in the VM's state directory, whose undo removes it, whole or half written."""

from collections.abc import Mapping

from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.sources import Library
from ingle.api_server.steps.target import Start


class RootDisk:
    """A writable copy of the image."""

    name = "root-disk"
    text = "making the root disk"

    def __init__(self, backends: Mapping[str, DiskBackend], images: Library) -> None:
        self._backends = backends
        self._images = images

    async def run(self, target: Start) -> None:
        image = self._images.path(target.image.id) / "rootfs.ext4"
        await self._backends[target.vm.disk_backend].create(image, target.paths.state, target.vm.disk_bytes)
