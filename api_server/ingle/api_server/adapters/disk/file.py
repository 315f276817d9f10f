"""What all backends have in common whose disks are files that a VMM opens as they are."""

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.disk import DiskChanges


class FileDisk:
    """Nothing is attached and nothing has to be detached: half of ports.disk.DiskBackend."""

    file: ClassVar[str]

    def disk_path(self, directory: Path) -> Path:
        return directory / self.file

    async def attach(self, vm: Vm, directory: Path) -> Path:
        return self.disk_path(directory)

    async def detach(self, vm_id: str) -> None:
        """Nobody holds it but the VMM."""

    async def reconcile(self, vms: Collection[Vm]) -> None:
        """They are as they were."""

    async def changes(self, vm_id: str, directory: Path) -> DiskChanges | None:
        return None
