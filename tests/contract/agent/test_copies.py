"""Directories as tar archives, in and out: everything arrives as it was, and nothing outside is ever touched."""

import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.agent.conftest import Run
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest_files import Copied
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.ports.guest_files import GuestFiles
from trees import SPARSE_SIZE, allocated, facts, make_tree


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


async def test_a_tree_goes_out_and_in_unchanged(files: GuestFiles, tmp_path: Path) -> None:
    tree, target = make_tree(tmp_path / "tree", 300), tmp_path / "target"
    target.mkdir()
    archive = await packed(files, tree)
    assert len(archive) < SPARSE_SIZE // 4
    copied = await files.copy_in(str(target), pieces(archive, 100_000), preserve_owners=True)
    assert (copied.entries, copied.attributes_left_out) == (len(facts(tree)), 0)
    assert facts(target / "tree") == facts(tree)
    assert allocated(target / "tree" / "odd" / "sparse") <= allocated(tree / "odd" / "sparse")


def sparse_archive(table: bytes, size: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("sparse")
        member.pax_headers = {"INGLE.sparse.size": size}
        content = table + bytes(-len(table) % 512) + content
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


async def test_a_large_hole_costs_nothing(files: GuestFiles, tmp_path: Path) -> None:
    archive = sparse_archive(b"3\n4096\n2\n9000\n1\n1099511627776\n0\n", str(1 << 40), b"abc")
    copied = await files.copy_in(str(tmp_path), pieces(archive))
    assert copied == Copied(entries=1, bytes=1 << 40)
    with (tmp_path / "sparse").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == 1 << 40
        assert file.read(10_000) == bytes(4096) + b"ab" + bytes(9000 - 4098) + b"c" + bytes(999)
    assert allocated(tmp_path / "sparse") <= 64 << 10


@pytest.mark.parametrize(
    ("table", "size"),
    [
        (b"1\n0\n1\n", "-1"),
        (b"1\n0\n1\n", "x"),
        (b"1\n0\n10\n", "9"),
        (b"1\n-1\n1\n", "9"),
        (b"2\n4\n1\n0\n1\n", "9"),
        (b"1\n9223372036854775807\n1\n", "9"),
        (b"1\n0\n9223372036854775807\n", "9223372036854775807"),
        (b"20000\n" + b"1\n0\n" * 20_000, "9"),
        (b"1\n" + b"0" * 5000 + b"\n1\n", "9"),
        (b"5\n", "9"),
        (b"", "9"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_map_that_lies_is_refused(files: GuestFiles, tmp_path: Path, table: bytes, size: str) -> None:
    with pytest.raises(GuestError) as refused:
        await files.copy_in(str(tmp_path), pieces(sparse_archive(table, size, b"ab"), 100_000))
    assert refused.value.reason in {Reason.ARCHIVE_INVALID, Reason.FILE_TOO_LARGE}
    assert list(tmp_path.iterdir()) == []


async def test_a_user_gains_no_powers_by_a_copy(files: GuestFiles, tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o055)
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    records = {f"SCHILY.xattr.{name}": "x" for name in ("trusted.a", "security.capability", "security.b", "user.c")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("f")
        member.uid = member.gid = 65534
        member.pax_headers = records
        archive.addfile(member)
    archived = pieces(buffer.getvalue())
    copied = await files.copy_in(str(tmp_path / "theirs"), archived, preserve_owners=True, user="nobody")
    assert copied.attributes_left_out == 3
    assert os.listxattr(tmp_path / "theirs" / "f") == ["user.c"]
    os.setxattr(tmp_path / "theirs" / "f", "trusted.secret", b"x")
    out = [event async for event in files.copy_out(str(tmp_path / "theirs" / "f"), user="nobody")]
    assert b"user.c" in b"".join(piece for piece in out if isinstance(piece, bytes))
    assert b"trusted" not in b"".join(piece for piece in out if isinstance(piece, bytes))


async def test_gnu_tar_understands_and_is_understood(files: GuestFiles, run: Run, tmp_path: Path) -> None:
    tree, ours, theirs = make_tree(tmp_path / "tree", 100), tmp_path / "ours", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--format=pax"]
    archive = await packed(files, tree)
    await run("tar", "x", "-C", str(theirs), "--same-owner", *options, stdin=archive)
    assert facts(theirs / "tree") == facts(tree)
    made = await run("tar", "c", "-S", "-C", str(tmp_path), *options, "tree")
    await files.copy_in(str(ours), pieces(made.stdout, 100_000), preserve_owners=True)
    assert facts(ours / "tree") == facts(tree)
    assert allocated(ours / "tree" / "odd" / "sparse") <= allocated(tree / "odd" / "sparse")


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
