"""Root disks: what every backend promises, and what is particular to one."""

import asyncio
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ingle.api_server.adapters.disk import CopyDisk, Qcow2Disk
from ingle.api_server.host.files import allocated_bytes, sha256
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.ports.disk import Disk, DiskBackend, DiskFormat
from unit.api_server.vmms import VM

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A sparse image of 32 MiB with 1 MiB of data."""
    path = tmp_path / "images" / "it's, an image" / "rootfs.ext4"
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, 32 * MIB)
    with open(path, "r+b") as file:
        file.seek(8 * MIB)
        file.write(os.urandom(MIB))
    path.chmod(0o444)
    return path


@pytest.fixture
def vm(tmp_path: Path) -> Path:
    path = tmp_path / "vm"
    path.mkdir()
    return path


@pytest.fixture(params=["qcow2", "copy"])
def backend(request: pytest.FixtureRequest, tools: Tools) -> DiskBackend:
    """Those that work on any file system."""
    return Qcow2Disk(tools) if request.param == "qcow2" else CopyDisk()


def qemu_img(*arguments: str | Path) -> Any:
    done = subprocess.run(["qemu-img", *arguments, "--output=json"], capture_output=True, check=True)
    return json.loads(done.stdout)


def content(disk: Path, tmp_path: Path) -> Path:
    """The disk as a guest would see it."""
    raw = tmp_path / "as-seen.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    return raw


async def test_what_a_vmm_is_told_of_a_disk_is_what_it_is(backend: DiskBackend, image: Path, vm: Path) -> None:
    await backend.create(Disk(image, DiskFormat.RAW), vm, GIB)
    disk = await backend.attach(VM, vm)
    assert disk.path == backend.disk_path(vm)
    assert disk.format is backend.format
    assert disk.format.value == qemu_img("info", disk.path)["format"]
    assert not disk.is_block


async def test_the_disk_has_the_image_in_front_and_the_size_that_was_asked_for(
    backend: DiskBackend, image: Path, vm: Path, tmp_path: Path
) -> None:
    assert await backend.usable(image.parent, vm) == ""
    await backend.create(Disk(image, DiskFormat.RAW), vm, 10 * GIB)
    disk = backend.disk_path(vm)
    assert qemu_img("info", disk)["virtual-size"] == 10 * GIB
    seen = content(disk, tmp_path)
    os.truncate(seen, 32 * MIB)
    assert sha256(seen) == sha256(image)


async def test_a_disk_is_private_and_takes_no_more_than_its_data(backend: DiskBackend, image: Path, vm: Path) -> None:
    await backend.create(Disk(image, DiskFormat.RAW), vm, 10 * GIB)
    disk = backend.disk_path(vm)
    assert stat.S_IMODE(disk.stat().st_mode) == 0o600
    assert allocated_bytes(disk) <= 2 * MIB


async def test_a_disk_may_be_just_as_large_as_its_image(backend: DiskBackend, image: Path, vm: Path) -> None:
    await backend.create(Disk(image, DiskFormat.RAW), vm, 32 * MIB)
    assert qemu_img("info", backend.disk_path(vm))["virtual-size"] == 32 * MIB


async def test_a_disk_smaller_than_its_image_is_refused_with_the_least_size(
    backend: DiskBackend, image: Path, vm: Path
) -> None:
    with pytest.raises(InvalidArgument, match="at least 32 MiB"):
        await backend.create(Disk(image, DiskFormat.RAW), vm, 32 * MIB - 512)
    assert list(vm.iterdir()) == []


async def test_half_a_sector_is_refused(backend: DiskBackend, image: Path, vm: Path) -> None:
    with pytest.raises(InvalidArgument, match="not a multiple of 512"):
        await backend.create(Disk(image, DiskFormat.RAW), vm, GIB + 1)
    assert list(vm.iterdir()) == []


async def test_writing_to_a_disk_leaves_its_image_alone(
    backend: DiskBackend, image: Path, vm: Path, tools: Tools
) -> None:
    before = sha256(image)
    await backend.create(Disk(image, DiskFormat.RAW), vm, GIB)
    disk = backend.disk_path(vm)
    kind = qemu_img("info", disk)["format"]
    await tools.run(["qemu-io", "-f", kind, "-c", "write -P 7 8M 1M", "-c", "write -P 9 900M 64k", disk])
    assert sha256(image) == before


async def test_a_disk_grows_and_keeps_its_content(backend: DiskBackend, image: Path, vm: Path, tmp_path: Path) -> None:
    await backend.create(Disk(image, DiskFormat.RAW), vm, GIB)
    await backend.grow(vm, 20 * GIB)
    assert qemu_img("info", backend.disk_path(vm))["virtual-size"] == 20 * GIB
    seen = content(backend.disk_path(vm), tmp_path)
    os.truncate(seen, 32 * MIB)
    assert sha256(seen) == sha256(image)


async def test_a_disk_never_shrinks(backend: DiskBackend, image: Path, vm: Path) -> None:
    await backend.create(Disk(image, DiskFormat.RAW), vm, GIB)
    with pytest.raises(InvalidArgument, match="at least 1 GiB"):
        await backend.grow(vm, GIB - 512)
    assert qemu_img("info", backend.disk_path(vm))["virtual-size"] == GIB


async def test_a_disk_that_exists_is_not_overwritten(backend: DiskBackend, image: Path, vm: Path) -> None:
    backend.disk_path(vm).write_text("precious")
    with pytest.raises(FileExistsError):
        await backend.create(Disk(image, DiskFormat.RAW), vm, GIB)
    assert backend.disk_path(vm).read_text() == "precious"


async def test_a_disk_over_another_has_what_that_has_and_leaves_it_alone(
    backend: DiskBackend, image: Path, vm: Path, tmp_path: Path, tools: Tools
) -> None:
    await backend.create(Disk(image, DiskFormat.RAW), vm, GIB)
    base = await backend.attach(VM, vm)
    await tools.run(["qemu-io", "-f", base.format.value, "-c", "write -P 7 900M 64k", base.path])
    base.path.chmod(0o400)
    before, above = sha256(base.path), tmp_path / "above"
    above.mkdir()
    with pytest.raises(InvalidArgument, match="at least 1 GiB"):
        await backend.create(base, above, GIB - 512)
    await backend.create(base, above, 2 * GIB)
    disk = backend.disk_path(above)
    assert qemu_img("info", disk)["virtual-size"] == 2 * GIB
    await tools.run(["qemu-io", "-f", base.format.value, "-c", "read -P 7 900M 64k", "-c", "write -P 9 0 64k", disk])
    assert sha256(base.path) == before


async def test_a_duplicate_is_the_same_and_changes_alone(
    backend: DiskBackend, image: Path, vm: Path, tmp_path: Path, tools: Tools
) -> None:
    await backend.create(Disk(image, DiskFormat.RAW), vm, GIB)
    disk, kind = backend.disk_path(vm), backend.format.value
    await tools.run(["qemu-io", "-f", kind, "-c", "write -P 7 900M 64k", disk])
    disk.chmod(0o400)
    before, twin = sha256(disk), tmp_path / "twin"
    twin.mkdir()
    await backend.duplicate(disk, image, twin)
    copy = backend.disk_path(twin)
    assert sha256(content(copy, tmp_path)) == sha256(content(disk, tmp_path / "images"))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    await tools.run(["qemu-io", "-f", kind, "-c", "write -P 9 900M 64k", copy])
    assert sha256(disk) == before
    with pytest.raises(FileExistsError):
        await backend.duplicate(disk, image, twin)


@pytest.mark.parametrize("place", ["elsewhere", "a much longer name than it had, with a directory or two in front"])
async def test_a_duplicate_finds_its_image_where_it_is_now(
    tools: Tools, image: Path, vm: Path, tmp_path: Path, place: str
) -> None:
    backend, twin = Qcow2Disk(tools), tmp_path / "twin"
    twin.mkdir()
    await backend.create(Disk(image, DiskFormat.RAW), vm, GIB)
    moved = tmp_path / place / "rootfs.ext4"
    moved.parent.mkdir()
    image.rename(moved)
    await backend.duplicate(backend.disk_path(vm), moved, twin)
    assert qemu_img("info", backend.disk_path(twin))["backing-filename"] == str(moved)
    assert qemu_img("check", backend.disk_path(twin))["check-errors"] == 0


@pytest.mark.parametrize("size", [32 * MIB, 512 * MIB, 512 * MIB + 512, 5 << 40, 40 << 40])
async def test_qcow2_files_are_perfect_at_any_size(tools: Tools, image: Path, vm: Path, size: int) -> None:
    backend = Qcow2Disk(tools)
    await backend.create(Disk(image, DiskFormat.RAW), vm, size)
    checked = qemu_img("check", backend.disk_path(vm))
    assert checked["check-errors"] == 0
    assert "leaks" not in checked
    assert "corruptions" not in checked
    info = qemu_img("info", backend.disk_path(vm))
    assert info["backing-filename"] == str(image)
    assert info["backing-filename-format"] == "raw"


async def test_a_relative_image_is_found_from_anywhere(
    tools: Tools, image: Path, vm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image.parent)
    await Qcow2Disk(tools).create(Disk(Path(image.name), DiskFormat.RAW), vm, GIB)
    assert qemu_img("info", Qcow2Disk(tools).disk_path(vm))["backing-filename"] == str(image)


async def test_copies_at_once_do_not_mix(image: Path, tmp_path: Path) -> None:
    directories = [tmp_path / f"vm{number}" for number in range(4)]
    for directory in directories:
        directory.mkdir()
    await asyncio.gather(*(CopyDisk().create(Disk(image, DiskFormat.RAW), directory, GIB) for directory in directories))
    for directory in directories:
        os.truncate(CopyDisk().disk_path(directory), 32 * MIB)
        assert sha256(CopyDisk().disk_path(directory)) == sha256(image)
