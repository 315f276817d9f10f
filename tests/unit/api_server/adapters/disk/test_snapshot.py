"""Disks by device-mapper, without the kernel's part: what the file has room for, and what the helper is asked."""

import os
import stat
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.adapters.disk import SnapshotDisk
from ingle.api_server.model.errors import HostProblem, InvalidArgument, Reason
from ingle.api_server.ports.devices import SnapshotDevice, WantedDevice
from ingle.api_server.ports.disk import Disk, DiskChanges, DiskFormat
from unit.api_server.vmms import VM

MIB = 1 << 20
GIB = 1 << 30


class Asked:
    """A helper that remembers what it was asked for, and has devices that are as they are told to be."""

    def __init__(self) -> None:
        self.there: dict[str, WantedDevice] = {}
        self.no = ""
        self.overflowed = False
        self.reconciled = 0

    async def problem(self) -> str:
        return self.no

    async def ensure(self, wanted: WantedDevice) -> SnapshotDevice:
        self.there[wanted.vm_id] = wanted
        return self._device(wanted)

    async def remove(self, vm_id: str) -> None:
        self.there.pop(vm_id, None)

    async def find(self, vm_id: str) -> SnapshotDevice | None:
        return self._device(self.there[vm_id]) if vm_id in self.there else None

    async def reconcile(self, wanted: Collection[WantedDevice]) -> None:
        self.reconciled += 1
        self.there = {each.vm_id: each for each in wanted}

    def _device(self, wanted: WantedDevice) -> SnapshotDevice:
        return SnapshotDevice(Path("/dev/ingle", wanted.vm_id), self.overflowed, 8192, 9 * MIB)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def disk(asked: Asked) -> SnapshotDisk:
    return SnapshotDisk(asked)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs.ext4"
    path.touch()
    os.truncate(path, MIB)
    return path


@pytest.fixture
def vm(tmp_path: Path) -> Path:
    path = tmp_path / "vm"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("size", "chunks"),
    [
        (MIB, 1 + 256 + 1 + 1),  # the header, an area that is full, and the records of the next
        (MIB + 512, 1 + 257 + 2 + 1),
        (2 * MIB, 1 + 512 + 2 + 1),
    ],
)
async def test_the_file_has_room_for_every_block_and_takes_none(
    disk: SnapshotDisk, image: Path, vm: Path, size: int, chunks: int
) -> None:
    await disk.create(Disk(image, DiskFormat.RAW), vm, size)
    status = disk.disk_path(vm).stat()
    assert status.st_size == chunks * 4096
    assert status.st_blocks == 0
    assert stat.S_IMODE(status.st_mode) == 0o600


async def test_what_can_not_be_a_disk_of_an_image_is_refused_and_makes_no_file(
    disk: SnapshotDisk, image: Path, vm: Path
) -> None:
    with pytest.raises(InvalidArgument, match="at least 1 MiB"):
        await disk.create(Disk(image, DiskFormat.RAW), vm, MIB - 512)
    os.truncate(image, MIB + 512)
    with pytest.raises(InvalidArgument, match="must be a multiple of 4096") as refused:
        await disk.create(Disk(image, DiskFormat.RAW), vm, GIB)
    assert "qcow2" in refused.value.remedy
    assert list(vm.iterdir()) == []


async def test_it_grows_with_the_disk_and_never_shrinks(disk: SnapshotDisk, image: Path, vm: Path) -> None:
    await disk.create(Disk(image, DiskFormat.RAW), vm, GIB)
    before = disk.disk_path(vm).stat().st_size
    await disk.grow(vm, 2 * GIB)
    assert disk.disk_path(vm).stat().st_size > before + GIB
    with pytest.raises(InvalidArgument):
        await disk.grow(vm, GIB)


async def test_a_vmm_opens_the_device_which_has_whole_blocks(disk: SnapshotDisk, asked: Asked, vm: Path) -> None:
    attached = await disk.attach(replace(VM, settings=replace(VM.settings, disk_bytes=GIB + 512)), vm)
    assert attached == Disk(Path("/dev/ingle", VM.id), DiskFormat.RAW, is_block=True)
    assert asked.there == {VM.id: WantedDevice(VM.id, VM.settings.image_id, GIB + 4096)}
    await disk.detach(VM.id)
    assert asked.there == {}


async def test_a_disk_that_is_lost_is_not_started(disk: SnapshotDisk, asked: Asked, vm: Path) -> None:
    asked.overflowed = True
    with pytest.raises(HostProblem, match="the disk of VM 'demo' is lost") as refused:
        await disk.attach(VM, vm)
    assert refused.value.reason is Reason.DISK_OVERFLOWED
    assert refused.value.remedy == "ingle vm delete demo"


async def test_reconciling_names_exactly_those_and_is_spared_a_host_that_has_no_helper_and_needs_none(
    disk: SnapshotDisk, asked: Asked
) -> None:
    asked.there["f" * 12] = WantedDevice("f" * 12, VM.settings.image_id, GIB)
    await disk.reconcile([VM])
    assert set(asked.there) == {VM.id}
    await disk.reconcile([])
    assert asked.there == {}
    asked.no = "no helper"
    await disk.reconcile([])
    assert asked.reconciled == 2


async def test_how_full_it_is_is_known_while_it_is_attached(disk: SnapshotDisk, vm: Path) -> None:
    assert await disk.changes(VM.id, vm) is None
    await disk.attach(VM, vm)
    changes = await disk.changes(VM.id, vm)
    assert changes is not None
    assert (changes.used_bytes, changes.capacity_bytes) == (8192, 9 * MIB)
    assert changes.free_bytes > 0


@pytest.mark.parametrize(
    ("changes", "room", "filling"),
    [
        (DiskChanges(0, 100, 1000), 100, False),
        (DiskChanges(0, 100, 50), 50, False),  # not enough for all, and yet a lot
        (DiskChanges(0, 100, 9), 9, True),
        (DiskChanges(95, 100, 9), 5, False),  # full, and no harm in it
        (DiskChanges(95, 100, 4), 4, True),
        (DiskChanges(0, 100, 1000, overflowed=True), 100, True),
    ],
)
def test_a_disk_fills_when_the_host_can_not_take_what_may_come(changes: DiskChanges, room: int, filling: bool) -> None:
    assert (changes.room_bytes, changes.filling) == (room, filling)
