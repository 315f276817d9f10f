"""Tar archives become ext4 files that hold exactly what the archive says, whoever runs it; hostile ones are refused."""

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped]
import pytest
import zstandard

from ingle.api_server.adapters.rootfs import contents
from ingle.api_server.adapters.rootfs.contents import Contents
from ingle.api_server.adapters.rootfs.ext4 import make_command
from ingle.api_server.host.files import allocated_bytes
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import BadFile, Reason
from ingle.api_server.ports.sources import ImageSource
from unit.api_server.adapters.rootfs import ext4_reader as ext4
from unit.api_server.adapters.rootfs.archives import Archive, receive

Convert = Callable[[Path], Awaitable[Path]]


def no_report(text: str, fraction: float | None) -> None:
    """Nobody listens."""


@pytest.fixture(params=["as ourselves", "through fakeroot"])
def image_of(
    request: pytest.FixtureRequest, source: ImageSource, into: Path, monkeypatch: pytest.MonkeyPatch
) -> Convert:
    if request.param == "through fakeroot":
        monkeypatch.setattr(os, "getuid", lambda: 1000)

    async def convert(rootfs: Path) -> Path:
        await receive(source, rootfs, into)
        assert [path.name for path in into.iterdir()] == ["rootfs.ext4"]
        image = into / "rootfs.ext4"
        ext4.check(image)
        return image

    return convert


async def test_owners_modes_links_and_devices_are_those_of_the_archive(image_of: Convert, tmp_path: Path) -> None:
    archive = (
        Archive()
        .directory("./", mode=0o755)
        .directory("./etc")
        .file("./etc/shadow", b"secret", mode=0o640, uid=0, gid=42)
        .file("./usr/bin/su", mode=0o4755)
        .directory("./home/me", mode=0o700, uid=1000, gid=1001)
        .directory("./tmp", mode=0o1777)
        .symlink("./bin", "usr/bin")
        .symlink("./etc/absolute", "/usr/bin/su")
        .hard_link("./usr/bin/sudo", "./usr/bin/su")
        .device("./dev/console", 5, 1)
        .directory("./locked", mode=0)
        .file("./locked/file")
    ).save(tmp_path / "rootfs.tar")
    image = await image_of(archive)
    assert ext4.content(image, "/etc/shadow") == b"secret"
    shadow = ext4.inode(image, "/etc/shadow")
    assert (shadow.mode, shadow.uid, shadow.gid) == (0o640, 0, 42)
    assert ext4.inode(image, "/usr/bin/su").mode == 0o4755
    assert ext4.inode(image, "/usr/bin/su") == ext4.inode(image, "/usr/bin/sudo")
    assert ext4.inode(image, "/usr/bin/su").links == 2
    me = ext4.inode(image, "/home/me")
    assert (me.mode, me.uid, me.gid) == (0o700, 1000, 1001)
    assert ext4.inode(image, "/tmp").mode == 0o1777
    assert ext4.inode(image, "/locked").mode == 0
    assert ext4.inode(image, "/").mode == 0o755
    assert 'Fast link dest: "usr/bin"' in ext4.debugfs(image, "stat /bin")
    assert 'Fast link dest: "/usr/bin/su"' in ext4.debugfs(image, "stat /etc/absolute")
    assert ext4.inode(image, "/dev/console").kind == "character"
    assert "05:01" in ext4.debugfs(image, "stat /dev/console")


async def test_extended_attributes_are_those_of_the_archive(image_of: Convert, tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    archive = (
        Archive()
        .with_xattr("usr/bin/ping", b"ping", "security.capability", capability)
        .with_xattr('a "quoted" name', b"x", "user.note", b"\xff\0binary")
    ).save(tmp_path / "rootfs.tar")
    image = await image_of(archive)
    assert f"security.capability (20) = {capability.hex(' ')}" in ext4.debugfs(image, "ea_list /usr/bin/ping")
    assert "ff 00 62 69 6e 61 72 79" in ext4.debugfs(image, 'ea_list "/a ""quoted"" name"')


async def test_any_name_that_a_file_can_have(image_of: Convert, tmp_path: Path) -> None:
    names = {"with space", "ünïcödé", "-dash", "'quotes'", "*", "$(touch x)", "ä" * 100}
    archive = Archive()
    for name in names:
        archive.file(f"d/{name}")
    image = await image_of(archive.save(tmp_path / "rootfs.tar"))
    assert ext4.names(image, "/d") == names


async def test_many_small_files_fit(source: ImageSource, into: Path, tmp_path: Path) -> None:
    archive = Archive()
    for number in range(6_000):
        archive.file(f"d{number % 100}/f{number}", b"x")
    await receive(source, archive.save(tmp_path / "rootfs.tar"), into)
    ext4.check(into / "rootfs.ext4")
    assert len(ext4.names(into / "rootfs.ext4", "/d7")) == 60


async def test_a_large_file_fits_and_a_sparse_one_stays_small(source: ImageSource, into: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(random.Random(1).randbytes(30 << 20))
    (tree / "sparse").touch()
    os.truncate(tree / "sparse", 300 << 20)
    await receive(source, tree, into)
    image = into / "rootfs.ext4"
    ext4.check(image)
    assert ext4.content(image, "/large") == (tree / "large").read_bytes()
    assert image.stat().st_blocks * 512 < 64 << 20


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_any_usual_compression(source: ImageSource, into: Path, tmp_path: Path, compression: str) -> None:
    path = tmp_path / "rootfs"
    path.write_bytes(COMPRESSIONS[compression](Archive().file("hello", b"there").content()))
    await receive(source, path, into)
    assert ext4.content(into / "rootfs.ext4", "/hello") == b"there"
    assert not (into / ".scratch").exists()


async def refused(source: ImageSource, into: Path, rootfs: Path) -> str:
    with pytest.raises(BadFile) as raised:
        await receive(source, rootfs, into)
    assert raised.value.reason is Reason.IMAGE_INVALID
    assert not (into / "rootfs.ext4").exists()
    return raised.value.message


@pytest.mark.parametrize(
    "archive",
    [
        Archive().file("ok").file("/etc/passwd"),
        Archive().file("ok").file("../outside"),
        Archive().file("ok").file("a/../../outside"),
        Archive().file("ok").directory("../outside"),
        Archive().file("ok").symlink("../outside", "x"),
        Archive().file("ok").hard_link("link", "/etc/passwd"),
        Archive().file("ok").hard_link("link", "../../etc/passwd"),
    ],
)
async def test_names_that_lead_out_are_refused(
    source: ImageSource, into: Path, tmp_path: Path, archive: Archive
) -> None:
    message = await refused(source, into, archive.save(tmp_path / "rootfs.tar"))
    assert "names must be relative and without '..'" in message


async def test_a_name_behind_a_symlink_that_leads_out_is_refused(
    source: ImageSource, into: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = Archive().symlink("way/out", str(outside)).file("way/out/file").save(tmp_path / "rootfs.tar")
    assert "'way/out/file' is behind a symlink" in await refused(source, into, archive)
    assert list(outside.iterdir()) == []


async def test_a_name_behind_a_symlink_within_is_fine(image_of: Convert, tmp_path: Path) -> None:
    archive = Archive().directory("usr/lib").symlink("lib", "usr/lib").file("lib/file", b"there")
    assert ext4.content(await image_of(archive.save(tmp_path / "rootfs.tar")), "/usr/lib/file") == b"there"


async def test_an_archive_without_files_is_refused(source: ImageSource, into: Path, tmp_path: Path) -> None:
    assert "holds no files" in await refused(
        source, into, Archive().directory("etc").symlink("bin", "usr/bin").save(tmp_path / "rootfs.tar")
    )
    empty = tmp_path / "empty.tar"
    empty.write_bytes(bytes(10240))
    assert "holds no files" in await refused_again(source, into, empty)


async def refused_again(source: ImageSource, into: Path, rootfs: Path) -> str:
    """The caller's directory is new for each attempt."""
    (into / "again").mkdir()
    return await refused(source, into / "again", rootfs)


WHOLE = Archive().file("one", b"1" * 5000).file("two", b"2" * 5000).content()


@pytest.mark.parametrize("left", [300, 512, 1000, 5632, 6000, 6144, 8000, 11264, 11300])
def test_an_archive_that_ends_early_is_refused_wherever_it_ends(tmp_path: Path, left: int) -> None:
    with tarfile.open(fileobj=io.BytesIO(WHOLE)) as tar:
        assert left < tar.getmembers()[-1].offset_data + 5632
    path = tmp_path / "rootfs.tar"
    path.write_bytes(WHOLE[:left])
    with pytest.raises(BadFile) as raised:
        contents.of_archive(path)
    assert raised.value.reason is Reason.IMAGE_INVALID


def test_an_archive_with_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rootfs.tar"
    damaged = bytearray(WHOLE)
    damaged[5632] ^= 0xFF  # the second header: its name, so that its checksum is wrong
    path.write_bytes(damaged)
    with pytest.raises(BadFile, match="truncated or corrupt"):
        contents.of_archive(path)


async def test_a_compressed_archive_that_ends_early_is_refused(source: ImageSource, into: Path, tmp_path: Path) -> None:
    path = tmp_path / "rootfs.tar.gz"
    path.write_bytes(gzip.compress(WHOLE)[:-20])
    assert "the gzip data is corrupt" in await refused(source, into, path)


@pytest.mark.parametrize("data", [b"text\n" * 10_000, b"\x7fELF" + bytes(5000), b"#!/bin/sh\n"])
async def test_what_is_no_root_file_system_is_refused_with_what_is_allowed(
    source: ImageSource, into: Path, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert "give a tar archive (plain, gzip, bzip2, xz, lzma, lz4 or zstd), an ext4 image, or a directory" in (
        await refused(source, into, path)
    )


async def test_an_empty_file_is_refused(source: ImageSource, into: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert "is empty" in await refused(source, into, tmp_path / "empty")


async def test_more_than_a_file_system_usually_grows_to_fits_as_well(tools: Tools, tmp_path: Path) -> None:
    """Without a byte of it: what is sparse in the archive is here, too."""
    (tmp_path / "tree").mkdir()
    image = tmp_path / "rootfs.ext4"
    await tools.run(make_command(Contents(inodes=2, blocks=(100 << 30) // 4096), tmp_path / "tree", image))
    assert image.stat().st_size > 100 << 30
    assert allocated_bytes(image) < 1 << 30
