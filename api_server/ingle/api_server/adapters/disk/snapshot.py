"""Disks as device-mapper snapshots: the image's blocks are one read-only device for all its VMs, what a VM changes goes
to a sparse file of its own. The helper puts the two together while a VMM runs; without one there is the file alone.

Works under any engine. A snapshot whose file can't take a change is lost as a whole, so the file has room for every
block of the disk: it overflows when the host's file system is full, and not before.
"""

import os
from collections.abc import Collection
from pathlib import Path

from ingle.api_server.adapters.disk.size import check_holds, check_size
from ingle.api_server.host import files
from ingle.api_server.host.threads import in_thread
from ingle.api_server.model.errors import HostProblem, InvalidArgument, Reason
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.devices import SnapshotDevices, WantedDevice
from ingle.api_server.ports.disk import Disk, DiskChanges, DiskFormat

_FILE = "disk.cow"

# The kernel's drivers/md/dm-snap-persistent.c: a chunk of header, then areas of one chunk of 16-byte records and the
# chunks that those tell of. It writes to the records of the next area as soon as one is full.
_CHUNK = 4096
_CHUNKS_PER_AREA = _CHUNK // 16


class SnapshotDisk:
    """Implements ports.disk.DiskBackend."""

    name = "dm-snapshot"
    format = DiskFormat.RAW
    copies = False
    stacks = False  # a device is made of an image and the changes to it

    def __init__(self, devices: SnapshotDevices) -> None:
        self._devices = devices

    def disk_path(self, directory: Path) -> Path:
        return directory / _FILE

    async def usable(self, images: Path, vms: Path) -> str:
        return await self._devices.problem()

    async def create(self, base: Disk, directory: Path, size_bytes: int) -> None:
        size = base.path.stat().st_size
        check_holds(size_bytes, size)
        if size % _CHUNK:
            raise InvalidArgument(
                f"the image has {size} bytes; for a dm-snapshot disk it must be a multiple of {_CHUNK}",
                "register the image again, or use --disk-backend qcow2",
            )
        with files.new_file(self.disk_path(directory), 0o600) as file:
            os.ftruncate(file, _bytes_for_changes(size_bytes))

    async def duplicate(self, disk: Path, image: Path, directory: Path) -> None:
        await in_thread(files.duplicate, disk, self.disk_path(directory))

    async def difference(self, disk: Path, base: Path | None, image: Path, directory: Path) -> None:
        """They rest on their image alone."""

    async def to_raw(self, disk: Path, target: Path) -> None:
        raise _stays()

    async def from_raw(self, raw: Path, image: Path, directory: Path) -> None:
        raise _stays()

    async def grow(self, directory: Path, size_bytes: int) -> None:
        disk = self.disk_path(directory)
        needed = _bytes_for_changes(size_bytes)
        check_size(needed, disk.stat().st_size, "it is now, with room for all changes,")
        with files.disk_full_reported(directory):
            os.truncate(disk, needed)

    async def attach(self, vm: Vm, directory: Path) -> Disk:
        device = await self._devices.ensure(_wanted(vm))
        if device.overflowed:
            raise HostProblem(
                Reason.DISK_OVERFLOWED,
                f"the disk of VM {vm.name!r} is lost: the host's disk was full when the guest wrote to it",
                f"ingle vm delete {vm.name}",
            )
        return Disk(device.path, self.format, is_block=True)

    async def detach(self, vm_id: str) -> None:
        await self._devices.remove(vm_id)

    async def reconcile(self, vms: Collection[Vm]) -> None:
        if vms or not await self._devices.problem():
            await self._devices.reconcile([_wanted(vm) for vm in vms])

    async def changes(self, vm_id: str, directory: Path) -> DiskChanges | None:
        device = await self._devices.find(vm_id)
        if device is None:
            return None
        free = files.free_bytes(directory)
        return DiskChanges(device.used_bytes, device.capacity_bytes, free, device.overflowed)


def _stays() -> HostProblem:
    return HostProblem(
        Reason.DEPENDENCY_MISSING, "what is on a dm-snapshot disk can't leave this host, nor come to it, in a snapshot"
    )


def _wanted(vm: Vm) -> WantedDevice:
    return WantedDevice(vm.id, vm.settings.image_id, _whole_chunks(vm.settings.disk_bytes) * _CHUNK)


def _whole_chunks(size_bytes: int) -> int:
    return -(-size_bytes // _CHUNK)


def _bytes_for_changes(size_bytes: int) -> int:
    """The least size of a file into which every block of a disk fits."""
    chunks = _whole_chunks(size_bytes)
    areas = -(-chunks // _CHUNKS_PER_AREA)
    return (1 + chunks + areas + 1) * _CHUNK
