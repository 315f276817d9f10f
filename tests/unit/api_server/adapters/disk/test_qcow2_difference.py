"""What is on a qcow2 disk and not on another one, held against what QEMU's own tools say of it."""

import os
import random
import subprocess
from pathlib import Path

import pytest

from ingle.api_server.adapters.disk import qcow2_difference, qcow2_format
from ingle.api_server.host.threads import Stop
from ingle.api_server.ports.disk import Disk, DiskFormat

MIB = 2**20
CLUSTER = 65536
SIZE = 1100 * MIB  # more than one L2 table


def qemu(*arguments: object) -> None:
    subprocess.run([str(each) for each in arguments], check=True, stdout=subprocess.DEVNULL)


def same(one: Path, other: Path) -> None:
    qemu("qemu-img", "compare", "-U", one, other)


def overlay(path: Path, base: Disk, size: int = SIZE) -> Path:
    path.write_bytes(qcow2_format.empty_overlay(base, size))
    return path


def write(disk: Path, random_: random.Random) -> None:
    """As a guest would."""
    commands: list[str] = []
    for _ in range(12):
        at, length = random_.randrange(0, SIZE - 4 * MIB) // 512 * 512, random_.randrange(1, 300) * 512
        pattern = random_.randrange(1, 256)
        commands += ["-c", random_.choice((f"write -P {pattern}", "write -z", "write -z -u")) + f" {at} {length}"]
    qemu("qemu-io", "-f", "qcow2", *commands, disk)


def copy(disk: Path, to: Path) -> Path:
    to.write_bytes(disk.read_bytes())
    return to


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.write(os.urandom(3 * MIB))
        file.truncate(40 * MIB)
    return image


@pytest.mark.parametrize("seed", range(4))
def test_each_of_a_chain_reads_as_the_disk_did(tmp_path: Path, image: Path, seed: int) -> None:
    random_ = random.Random(seed)
    live = overlay(tmp_path / "live", Disk(image, DiskFormat.RAW))
    write(live, random_)
    wholes = [copy(live, tmp_path / "whole-0")]
    kept = [wholes[0]]
    for number in range(1, 4):
        write(live, random_)
        wholes.append(copy(live, tmp_path / f"whole-{number}"))
        kept.append(tmp_path / f"kept-{number}")
        qcow2_difference.write(Stop(), wholes[-1], Disk(kept[-2], DiskFormat.QCOW2), kept[-1])
    for whole, each in zip(wholes, kept, strict=True):
        same(whole, each)
        qemu("qemu-img", "check", "-q", each)
    assert kept[-1].stat().st_size < wholes[-1].stat().st_size
    write(kept[-1], random_)  # it is a disk like any other
    qemu("qemu-img", "check", "-q", kept[-1])
    flat = tmp_path / "flat"
    qcow2_difference.write(Stop(), kept[-1], Disk(image, DiskFormat.RAW), flat)
    same(kept[-1], flat)
    qemu("qemu-img", "check", "-q", flat)


def test_a_disk_may_rest_on_one_of_another_branch(tmp_path: Path, image: Path) -> None:
    random_ = random.Random(7)
    root = overlay(tmp_path / "root", Disk(image, DiskFormat.RAW))
    write(root, random_)
    one = overlay(tmp_path / "one", Disk(root, DiskFormat.QCOW2))
    other = overlay(tmp_path / "other", Disk(root, DiskFormat.QCOW2))
    write(one, random_)
    write(other, random_)
    qcow2_difference.write(Stop(), one, Disk(other, DiskFormat.QCOW2), tmp_path / "moved")
    same(one, tmp_path / "moved")
    qemu("qemu-img", "check", "-q", tmp_path / "moved")


def test_what_does_not_differ_takes_nothing(tmp_path: Path, image: Path) -> None:
    disk = overlay(tmp_path / "disk", Disk(image, DiskFormat.RAW))
    write(disk, random.Random(1))
    qcow2_difference.write(Stop(), copy(disk, tmp_path / "again"), Disk(disk, DiskFormat.QCOW2), tmp_path / "nothing")
    assert (tmp_path / "nothing").stat().st_size == 4 * CLUSTER
    same(disk, tmp_path / "nothing")


def test_a_disk_of_another_image_or_of_no_known_kind_is_refused(tmp_path: Path, image: Path) -> None:
    copy(image, tmp_path / "image-2")
    disk = overlay(tmp_path / "disk", Disk(image, DiskFormat.RAW))
    other = overlay(tmp_path / "other", Disk(tmp_path / "image-2", DiskFormat.RAW))
    with pytest.raises(qcow2_format.Strange, match="image-2"):
        qcow2_difference.write(Stop(), disk, Disk(other, DiskFormat.QCOW2), tmp_path / "never")
    qemu("qemu-img", "convert", "-c", "-O", "qcow2", image, tmp_path / "compressed")
    for strange in ("compressed", "image"):
        with pytest.raises(qcow2_format.Strange):
            qcow2_difference.write(Stop(), tmp_path / strange, Disk(image, DiskFormat.RAW), tmp_path / "never")
    whole = disk.read_bytes()
    for cut in (0, 50, CLUSTER, 3 * CLUSTER + 8):
        disk.write_bytes(whole[:cut])
        with pytest.raises(qcow2_format.Strange):
            qcow2_difference.write(Stop(), disk, Disk(image, DiskFormat.RAW), tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("clusters", [1, 32766, 32767, 32768, 65535, 65536, 200_000])
def test_every_cluster_is_counted(clusters: int) -> None:
    counts, tables = qcow2_format.refcounts(clusters)
    blocks = len(counts) // CLUSTER - tables
    assert counts.count(b"\0\1", 0, blocks * CLUSTER) >= clusters + blocks + tables
    assert blocks * (CLUSTER // 2) >= clusters + blocks + tables
