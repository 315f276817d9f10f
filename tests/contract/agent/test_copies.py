"""Directories as tar archives, in and out: everything arrives as it was, and nothing outside is ever touched."""

import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest_files import Copied
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.ports.guest_files import GuestFiles


@pytest.fixture
def files(channel: GuestChannel) -> GuestFiles:
    return channel.files


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def packed(files: GuestFiles, path: Path) -> bytes:
    *archive, end = [event async for event in files.copy_out(str(path))]
    assert isinstance(end, Copied)
    return b"".join(piece for piece in archive if isinstance(piece, bytes))


def archive_of(*members: tuple[str, bytes, str, bytes]) -> bytes:
    """Entries of (name, type, link, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, link, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.mode = kind, link, len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def snapshot(top: Path) -> dict[str, tuple[object, ...]]:
    seen: dict[str, tuple[object, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        stat = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        facts = (stat.st_mode, stat.st_uid, stat.st_gid, int(stat.st_mtime), stat.st_nlink, content)
        seen[str(path.relative_to(top))] = facts
    return seen


async def test_a_tree_goes_out_and_in_unchanged(files: GuestFiles, tmp_path: Path) -> None:
    tree, target = tmp_path / "tree", tmp_path / "target"
    (tree / "deep" / ("long name " * 20)).mkdir(parents=True)
    target.mkdir()
    (tree / "empty").touch()
    (tree / "ünïcödé").write_bytes(os.urandom(1_000_000))
    (tree / "deep" / "program").write_bytes(b"#!/bin/sh\n")
    (tree / "deep" / "program").chmod(0o4755)
    (tree / "hard").hardlink_to(tree / "deep" / "program")
    (tree / "soft").symlink_to("/no/where")
    os.mkfifo(tree / "pipe", 0o600)
    os.chown(tree / "empty", 1, 2)
    os.utime(tree / "empty", (1_000_000_000, 1_000_000_000))
    (tree / "deep").chmod(0o555)
    copied = await files.copy_in(str(target), pieces(await packed(files, tree)), preserve_owners=True)
    assert copied == Copied(entries=9, bytes=1_000_010)
    assert snapshot(target / "tree") == snapshot(tree)


async def test_without_owners_all_belongs_to_the_user_and_setuid_is_dropped(files: GuestFiles, tmp_path: Path) -> None:
    tree, target = tmp_path / "tree", tmp_path / "target"
    tree.mkdir()
    target.mkdir()
    (tree / "program").touch()
    os.chown(tree / "program", 1, 2)
    (tree / "program").chmod(0o4755)
    await files.copy_in(str(target), pieces(await packed(files, tree)))
    stat = (target / "tree" / "program").stat()
    assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (os.getuid(), os.getgid(), 0o755)


async def test_what_is_there_is_replaced_and_directories_are_kept(files: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "kept").touch()
    (tmp_path / "d" / "file").write_bytes(b"old")
    archive = archive_of(("d/file", tarfile.REGTYPE, "", b"new"))
    await files.copy_in(str(tmp_path), pieces(archive))
    assert (tmp_path / "d" / "file").read_bytes() == b"new"
    assert (tmp_path / "d" / "kept").exists()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        pytest.param([("../evil", tarfile.REGTYPE, "", b"x")], Reason.ARCHIVE_INVALID, id="upwards"),
        pytest.param([("a/../../evil", tarfile.REGTYPE, "", b"x")], Reason.ARCHIVE_INVALID, id="upwards on the way"),
        pytest.param([("/evil", tarfile.REGTYPE, "", b"x")], Reason.ARCHIVE_INVALID, id="absolute"),
        pytest.param([("x", tarfile.LNKTYPE, "../secret", b"")], Reason.ARCHIVE_INVALID, id="a hard link out"),
        pytest.param(
            [("x", tarfile.SYMTYPE, "..", b""), ("x/evil", tarfile.REGTYPE, "", b"x")],
            Reason.SYMLINK_REFUSED,
            id="through a link of its own",
        ),
        pytest.param([("link/evil", tarfile.REGTYPE, "", b"x")], Reason.SYMLINK_REFUSED, id="through a link that was"),
        pytest.param([("link", tarfile.DIRTYPE, "", b"")], Reason.SYMLINK_REFUSED, id="a directory for a link"),
        pytest.param([("x", tarfile.LNKTYPE, "link/secret", b"")], Reason.SYMLINK_REFUSED, id="a hard link through"),
        pytest.param([("x", tarfile.LNKTYPE, "none", b"")], Reason.FILE_NOT_FOUND, id="a hard link to nothing"),
    ],
)
async def test_no_archive_leaves_its_directory(
    files: GuestFiles, tmp_path: Path, members: list[tuple[str, bytes, str, bytes]], reason: Reason
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(GuestError) as refused:
        await files.copy_in(str(inside), pieces(archive_of(*members)))
    assert refused.value.reason is reason
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "secret"]


@pytest.mark.parametrize("cut", [100, 700, 1200])
async def test_half_an_archive_is_refused(files: GuestFiles, tmp_path: Path, cut: int) -> None:
    archive = archive_of(("a", tarfile.REGTYPE, "", b"x" * 1000), ("b", tarfile.REGTYPE, "", b"y"))
    with pytest.raises(GuestError) as refused:
        await files.copy_in(str(tmp_path), pieces(archive[:cut]))
    assert refused.value.reason is Reason.ARCHIVE_INVALID


async def test_what_is_no_archive_is_refused(files: GuestFiles, tmp_path: Path) -> None:
    with pytest.raises(GuestError) as refused:
        await files.copy_in(str(tmp_path), pieces(b"hello, world" * 1000))
    assert refused.value.reason is Reason.ARCHIVE_INVALID
