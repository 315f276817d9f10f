"""What all backends have in common whose disks are files that a VMM opens as they are."""

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

from ingle.api_server.host import files
from ingle.api_server.host.threads import in_thread
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.disk import Disk, DiskChanges, DiskFormat


class FileDisk:
    """Nothing is attached and nothing has to be detached: half of ports.disk.DiskBackend."""

    file: ClassVar[str]
    format: DiskFormat
    copies = False
    stacks = True

    def disk_path(self, directory: Path) -> Path:
        return directory / self.file

    async def duplicate(self, disk: Path, image: Path, directory: Path) -> None:
        await in_thread(files.duplicate, disk, self.disk_path(directory))

    async def difference(self, disk: Path, base: Path | None, image: Path, directory: Path) -> None:
        """They rest on nothing else."""

    async def to_raw(self, disk: Path, target: Path) -> None:
        await in_thread(files.duplicate, disk, target)

    async def from_raw(self, raw: Path, image: Path, directory: Path) -> None:
        raw.rename(self.disk_path(directory))

    async def attach(self, vm: Vm, directory: Path) -> Disk:
        return Disk(self.disk_path(directory), self.format)

    async def detach(self, vm_id: str) -> None:
        """Nobody holds it but the VMM."""

    async def reconcile(self, vms: Collection[Vm]) -> None:
        """They are as they were."""

    async def changes(self, vm_id: str, directory: Path) -> DiskChanges | None:
        return None
