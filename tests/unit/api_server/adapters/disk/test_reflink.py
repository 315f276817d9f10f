"""Disks that share their image's blocks, where the file system can; and a clear no where it can't."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.api_server.adapters.disk import ReflinkDisk
from ingle.api_server.host.files import sha256
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.ports.disk import Disk, DiskFormat
from unit.places import MIB, PLACES, place_on


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with place_on(request.param, tmp_path) as path:
        yield path


@pytest.fixture
def image(place: Path) -> Path:
    path = place / "images" / "rootfs.ext4"
    path.parent.mkdir()
    path.write_bytes(os.urandom(8 * MIB))
    path.chmod(0o444)
    return path


@pytest.fixture
def vm(place: Path) -> Path:
    path = place / "vm"
    path.mkdir()
    return path


async def test_the_verdict_is_what_cp_finds_and_trying_leaves_nothing(image: Path, vm: Path) -> None:
    oracle = subprocess.run(  # noqa: ASYNC221
        ["cp", "--reflink=always", image, vm / "oracle"], capture_output=True, check=False
    )
    (vm / "oracle").unlink(missing_ok=True)
    problem = await ReflinkDisk().usable(image.parent, vm)
    assert (problem == "") == (oracle.returncode == 0)
    assert problem == "" or "btrfs and XFS can" in problem
    assert list(vm.iterdir()) == []
    assert list(image.parent.iterdir()) == [image]


async def test_different_file_systems_share_nothing(image: Path) -> None:
    assert "can't share blocks" in await ReflinkDisk().usable(image.parent, Path("/dev/shm"))


async def test_a_disk_shares_its_image_or_is_not_made(image: Path, vm: Path) -> None:
    backend, before = ReflinkDisk(), sha256(image)
    if await backend.usable(image.parent, vm):
        with pytest.raises(OSError, match="not supported"):
            await backend.create(Disk(image, DiskFormat.RAW), vm, 64 * MIB)
        assert list(vm.iterdir()) == []
        return
    await backend.create(Disk(image, DiskFormat.RAW), vm, 64 * MIB)
    disk = backend.disk_path(vm)
    assert disk.stat().st_size == 64 * MIB
    assert stat.S_IMODE(disk.stat().st_mode) == 0o600
    await backend.grow(vm, 100 * MIB)
    assert disk.stat().st_size == 100 * MIB
    with disk.open("r+b") as file:
        file.write(b"changed")
    assert sha256(image) == before
    os.truncate(disk, 8 * MIB)
    assert disk.read_bytes()[7:] == image.read_bytes()[7:]


async def test_a_disk_smaller_than_its_image_is_refused(image: Path, vm: Path) -> None:
    with pytest.raises(InvalidArgument, match="at least 8 MiB"):
        await ReflinkDisk().create(Disk(image, DiskFormat.RAW), vm, 8 * MIB - 512)
    assert list(vm.iterdir()) == []
