"""Raw disks: the image's blocks shared by the file system (reflink), or copied without its holes (copy).

Both work under any engine."""

import os
import tempfile
from pathlib import Path

from ingle.api_server.adapters.disk.file import FileDisk
from ingle.api_server.adapters.disk.size import check_holds, check_size
from ingle.api_server.host import files
from ingle.api_server.host.threads import in_thread
from ingle.api_server.ports.disk import Disk, DiskFormat

_FILE = "disk.raw"


class CopyDisk(FileDisk):
    """Implements ports.disk.DiskBackend with a sparse copy: works everywhere, costs what the image's data costs."""

    name = "copy"
    file = _FILE
    format = DiskFormat.RAW
    copies = True

    async def usable(self, images: Path, vms: Path) -> str:
        return ""

    async def create(self, base: Disk, directory: Path, size_bytes: int) -> None:
        check_holds(size_bytes, base.path.stat().st_size)
        await in_thread(_copy, base.path, self.disk_path(directory), size_bytes)

    async def grow(self, directory: Path, size_bytes: int) -> None:
        _grow(self.disk_path(directory), size_bytes)


class ReflinkDisk(FileDisk):
    """Implements ports.disk.DiskBackend with FICLONE: one ioctl on btrfs, XFS, bcachefs and their like."""

    name = "reflink"
    file = _FILE
    format = DiskFormat.RAW

    async def usable(self, images: Path, vms: Path) -> str:
        """Tried, not guessed: both directories may be on one mount and yet on different subvolumes or file systems."""
        return await in_thread(_why_no_reflink, images, vms)

    async def create(self, base: Disk, directory: Path, size_bytes: int) -> None:
        check_holds(size_bytes, base.path.stat().st_size)
        await in_thread(_reflink, base.path, self.disk_path(directory), size_bytes)

    async def grow(self, directory: Path, size_bytes: int) -> None:
        _grow(self.disk_path(directory), size_bytes)


def _copy(image: Path, disk: Path, size_bytes: int) -> None:
    files.copy_sparse(image, disk)
    os.truncate(disk, size_bytes)


def _reflink(image: Path, disk: Path, size_bytes: int) -> None:
    files.reflink(image, disk)
    os.truncate(disk, size_bytes)


def _grow(disk: Path, size_bytes: int) -> None:
    check_size(size_bytes, disk.stat().st_size, "it is now")
    with files.disk_full_reported(disk.parent):
        os.truncate(disk, size_bytes)


def _why_no_reflink(images: Path, vms: Path) -> str:
    with tempfile.NamedTemporaryFile(dir=images, prefix=".reflink-") as source:
        source.write(bytes(4096))
        source.flush()
        target = vms / Path(source.name).name
        try:
            files.reflink(Path(source.name), target)
        except OSError as error:
            if error.errno not in files.CANNOT_REFLINK:
                raise
            return f"files can't share blocks between {images} and {vms} ({error.strerror}); btrfs and XFS can"
        target.unlink()
    return ""
