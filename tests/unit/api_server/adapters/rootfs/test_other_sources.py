"""Directories and ext4 images as root file systems."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from ingle.api_server.host import tool
from ingle.api_server.host.rootlike import namespace
from ingle.api_server.host.tool import Tools, search_path
from ingle.api_server.model.errors import BadFile, HostProblem, NotFound, Reason
from ingle.api_server.ports.sources import ImageSource
from unit.api_server.adapters.rootfs import ext4_reader as ext4
from unit.api_server.adapters.rootfs.archives import Archive, receive


def no_report(text: str, fraction: float | None) -> None:
    """Nobody listens."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small root file system as a directory."""
    path = tmp_path / "tree"
    (path / "etc").mkdir(parents=True)
    (path / "etc" / "hostname").write_text("made-up")
    (path / "etc" / "hostname").chmod(0o640)
    os.link(path / "etc" / "hostname", path / "etc" / "again")
    (path / "bin").symlink_to("usr/bin")
    return path


@pytest.fixture
async def image(source: ImageSource, tmp_path: Path, tree: Path) -> Path:
    """An ext4 image that somebody brings along."""
    made = tmp_path / "made"
    made.mkdir()
    await receive(source, tree, made)
    return (made / "rootfs.ext4").rename(tmp_path / "image")


async def refused(source: ImageSource, into: Path, rootfs: Path) -> BadFile:
    with pytest.raises(BadFile) as raised:
        await receive(source, rootfs, into)
    assert raised.value.reason is Reason.IMAGE_INVALID
    return raised.value


@pytest.mark.parametrize("uid", [0, 1000])
async def test_a_directory_becomes_an_image(
    source: ImageSource, into: Path, tree: Path, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: uid)
    await receive(source, tree, into)
    made = into / "rootfs.ext4"
    ext4.check(made)
    assert ext4.content(made, "/etc/hostname") == b"made-up"
    hostname = ext4.inode(made, "/etc/hostname")
    assert (hostname.mode, hostname.links) == (0o640, 2)
    assert (hostname.uid, hostname.gid) == (0, 0)
    assert ext4.names(made, "/") == {"etc", "bin", "lost+found"}
    assert [path.name for path in into.iterdir()] == ["rootfs.ext4"]


async def test_a_directory_without_files_is_refused(source: ImageSource, into: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "etc").mkdir(parents=True)
    assert "holds no files" in (await refused(source, into, tmp_path / "empty")).message


async def test_an_ext4_image_is_taken_as_it_is(source: ImageSource, into: Path, image: Path) -> None:
    await receive(source, image, into)
    made = into / "rootfs.ext4"
    ext4.check(made)
    assert ext4.content(made, "/etc/hostname") == b"made-up"
    assert made.stat().st_size == image.stat().st_size
    assert made.stat().st_blocks <= image.stat().st_blocks + 64
    assert [path.name for path in into.iterdir()] == ["rootfs.ext4"]


async def test_an_ext4_image_ends_with_a_whole_block(source: ImageSource, into: Path, image: Path) -> None:
    size = image.stat().st_size
    os.truncate(image, size + 512)
    await receive(source, image, into)
    assert (into / "rootfs.ext4").stat().st_size == size + 4096


@pytest.mark.parametrize("left", [2048, 100_000, 1 << 20, -512])
async def test_a_truncated_ext4_image_is_refused(source: ImageSource, into: Path, image: Path, left: int) -> None:
    os.truncate(image, left if left > 0 else image.stat().st_size + left)
    assert "truncated" in (await refused(source, into, image)).message


async def test_an_ext4_image_without_files_is_refused(
    source: ImageSource, into: Path, tmp_path: Path, tools: Tools
) -> None:
    image = tmp_path / "image"
    await tools.run(["mke2fs", "-q", "-t", "ext4", image, "8M"])
    assert "holds no files" in (await refused(source, into, image)).message


async def test_a_damaged_ext4_image_is_refused(source: ImageSource, into: Path, image: Path) -> None:
    good = image.read_bytes()
    image.write_bytes(good[:4096] + b"\xff" * (8 << 20) + good[4096 + (8 << 20) :])
    assert "corrupt" in (await refused(source, into, image)).message


async def test_an_ext4_image_that_was_not_unmounted_is_mended(
    source: ImageSource, into: Path, image: Path, tools: Tools
) -> None:
    """Marked as in use; the original is left as it was."""
    await tools.run(["debugfs", "-w", "-R", "set_super_value state 0", image])
    before = image.read_bytes()
    await receive(source, image, into)
    ext4.check(into / "rootfs.ext4")
    assert image.read_bytes() == before


async def test_the_image_has_room_to_grow_but_little_to_write_when_it_does(
    source: ImageSource, into: Path, tree: Path
) -> None:
    """The group descriptors of 64 GiB: 512 groups of 64 bytes, less the block that is in use; each copy is zeroed."""
    await receive(source, tree, into)
    header = ext4.debugfs(into / "rootfs.ext4", "show_super_stats -h")
    (reserved,) = [int(line.split(":")[1]) for line in header.splitlines() if line.startswith("Reserved GDT blocks")]
    assert 512 * 64 // 4096 - 1 <= reserved <= 16


async def test_the_first_boot_has_nothing_to_initialize(source: ImageSource, into: Path, tree: Path) -> None:
    await receive(source, tree, into)
    groups = ext4.groups(into / "rootfs.ext4")
    assert groups
    assert all("ITABLE_ZEROED" in group for group in groups)


async def test_cancelling_stops_the_tools_and_leaves_only_what_is_the_callers_to_remove(
    source: ImageSource, into: Path, tmp_path: Path
) -> None:
    archive = Archive()
    for number in range(3_000):
        archive.file(f"f{number}")
    archive.save(tmp_path / "rootfs.tar")
    task = asyncio.create_task(receive(source, tmp_path / "rootfs.tar", into))
    while not any((into / ".scratch" / "tree").glob("f1*")):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    count = len(list(into.rglob("*")))
    await asyncio.sleep(0.05)
    assert len(list(into.rglob("*"))) == count


ON_A_FULL_DISK = """
import asyncio, sys
from pathlib import Path
from ingle.api_server.adapters.rootfs import RootFileSystems, contents
from ingle.api_server.host import tool
from ingle.api_server.host.tool import Tools, search_path
from ingle.api_server.model.errors import IngleError
rootfs, into = map(Path, sys.argv[1:])
try:
    asyncio.run(RootFileSystems(Tools(into)).convert(rootfs, into, lambda text, fraction: None))
except IngleError as error:
    print(error.reason.name)
"""


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "ext4"])
async def test_a_full_disk_is_told_as_one(
    source: ImageSource, into: Path, tmp_path: Path, tools: Tools, kind: str
) -> None:
    """On a file system of 4 MiB, mounted where only this test sees it."""
    data = os.urandom(6 << 20)
    directory = tmp_path / "tree"
    directory.mkdir()
    (directory / "large").write_bytes(data)
    rootfs = directory if kind == "ext4" else Archive().file("large", data).save(tmp_path / "rootfs")
    if kind == "ext4":
        await receive(source, directory, into)
        rootfs = (into / "rootfs.ext4").rename(tmp_path / "image")
    if kind == "tar.gz":
        await tools.run(["gzip", rootfs])
        rootfs = tmp_path / "rootfs.gz"
    prefix = await namespace(tools)
    assert prefix is not None
    mount = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" -c "$3" "$4" "$1"'
    arguments = (into, sys.executable, ON_A_FULL_DISK, rootfs)
    assert await tools.run([*prefix, "--", "sh", "-c", mount, "sh", *arguments]) == b"DISK_FULL\n"


async def test_a_name_the_catalog_lacks_is_told_with_those_it_has(source: ImageSource, into: Path) -> None:
    with pytest.raises(
        NotFound, match="it has: debian:bookworm, debian:bookworm-buildah, debian:bookworm-systemd"
    ) as raised:
        await source.pull("plan9:fourth", into, no_report)
    assert raised.value.reason is Reason.IMAGE_NOT_FOUND
    assert "debian:bookworm" in [entry.name for entry in source.catalog()]


@pytest.mark.parametrize(("program", "package"), [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")])
async def test_a_missing_program_is_told_with_its_package_though_another_would_start_it(
    source: ImageSource, into: Path, tree: Path, tmp_path: Path, program: str, package: str
) -> None:
    """A PATH that has everything but that one."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for directory in search_path().split(os.pathsep):
        for path in Path(directory).glob("*"):
            if path.name != program and not (programs / path.name).is_symlink():
                (programs / path.name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "search_path", lambda: str(programs))
        with pytest.raises(HostProblem) as raised:
            await (
                source.pull("debian:bookworm", into, no_report)
                if program == "mmdebstrap"
                else receive(source, tree, into)
            )
    assert raised.value.reason is Reason.DEPENDENCY_MISSING
    assert raised.value.remedy == f"sudo apt install {package}"
