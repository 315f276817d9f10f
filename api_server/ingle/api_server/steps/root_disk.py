"""Make the root disk. It lies in the VM's state directory, whose undo removes it, whole or half written."""

from collections.abc import Mapping
from pathlib import Path

from ingle.api_server.ports.disk import Disk, DiskBackend, DiskFormat
from ingle.api_server.ports.sources import Library
from ingle.api_server.steps.target import Start


class RootDisk:
    """What the image is, or what a snapshot's or a memory's disk is; writable."""

    name = "root-disk"
    text = "making the root disk"

    def __init__(self, backends: Mapping[str, DiskBackend], images: Library) -> None:
        self._backends = backends
        self._images = images

    async def run(self, target: Start) -> None:
        settings = target.vm.settings
        backend = self._backends[settings.disk_backend]
        image = image_file(self._images, target.image.id)
        if target.warm is not None:
            try:
                # Not over it: it is in a cache, which may be deleted.
                await backend.duplicate(target.warm.disk, image, target.paths.state)
            except FileNotFoundError:
                target.warm, target.warning = None, "the VM has booted: the memory it was to begin with is deleted"
            else:
                return
        if target.base is None:
            await backend.create(Disk(image, DiskFormat.RAW), target.paths.state, settings.disk_bytes)
        else:
            await disk_of_snapshot(backend, target.base, image, target.paths.state, settings.disk_bytes)


def image_file(images: Library, image_id: str) -> Path:
    """What disks begin with."""
    return images.path(image_id) / "rootfs.ext4"


async def disk_of_snapshot(backend: DiskBackend, base: Path, image: Path, directory: Path, size_bytes: int) -> None:
    """Make the disk in `directory` a writable one of what the snapshot with its files at `base` has."""
    if backend.stacks:
        await backend.create(Disk(backend.disk_path(base), backend.format), directory, size_bytes)
    else:
        await backend.duplicate(backend.disk_path(base), image, directory)
