"""Directories as tar archives, in and out: everything arrives as it was, and nothing outside is ever touched."""

import asyncio
import io
import os
import stat
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


async def test_a_copy_that_breaks_off_leaves_the_file_that_was_there(files: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    half = archive_of(("f", tarfile.REGTYPE, "", b"n" * 300_000))[:200_000]
    seen = []

    async def breaking_off() -> AsyncIterator[bytes]:
        yield half
        # The agent has begun with the file when it has made something beside it.
        async with asyncio.timeout(20):
            while len(os.listdir(tmp_path)) == 1:
                await asyncio.sleep(0.01)
        seen.append((tmp_path / "f").read_bytes())
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await files.copy_in(str(tmp_path), breaking_off())
    async with asyncio.timeout(20):
        while os.listdir(tmp_path) != ["f"]:
            await asyncio.sleep(0.01)
    assert [*seen, (tmp_path / "f").read_bytes()] == [b"old", b"old"]


async def test_an_archive_that_stops_between_two_files_is_told_from_a_whole_one(
    files: GuestFiles, tmp_path: Path
) -> None:
    whole = archive_of(("one", tarfile.REGTYPE, "", b"1" * 512), ("two", tarfile.REGTYPE, "", b"2"))
    for size in (0, 1024, 2048):
        with pytest.raises(GuestError) as raised:
            await files.copy_in(str(tmp_path), pieces(whole[:size], 100))
        assert raised.value.reason is Reason.ARCHIVE_INVALID
        assert "was all of it sent" in raised.value.message
    for size in (2048 + 512, 2048 + 1024, len(whole)):  # some tools write one block of zeros, in place of two
        assert (await files.copy_in(str(tmp_path), pieces(whole[:size], 100))).entries == 2


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory"])
async def test_a_file_replaces_nothing_but_a_file(files: GuestFiles, tmp_path: Path, kind: str) -> None:
    there = tmp_path / "there"
    match kind:
        case "fifo":
            os.mkfifo(there)
        case "socket":
            os.mknod(there, stat.S_IFSOCK | 0o600)
        case _:
            there.mkdir()
    before = there.lstat()
    for members in (("there", tarfile.REGTYPE, "", b"new"), ("there", tarfile.SYMTYPE, "x", b"")):
        with pytest.raises(GuestError) as refused:
            await files.copy_in(str(tmp_path), pieces(archive_of(members)))
        assert refused.value.reason in {Reason.NOT_A_REGULAR_FILE, Reason.IS_A_DIRECTORY}
    assert (there.lstat().st_mode, there.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert os.listdir(tmp_path) == ["there"]


async def test_a_copy_again_replaces_pipes_and_links_by_their_like(files: GuestFiles, tmp_path: Path) -> None:
    archive = archive_of(
        ("f", tarfile.REGTYPE, "", b"x"),
        ("p", tarfile.FIFOTYPE, "", b""),
        ("s", tarfile.SYMTYPE, "f", b""),
        ("h", tarfile.LNKTYPE, "f", b""),
        ("h", tarfile.LNKTYPE, "f", b""),
    )
    for _ in range(2):
        await files.copy_in(str(tmp_path), pieces(archive))
    assert sorted(os.listdir(tmp_path)) == ["f", "h", "p", "s"]
    assert (tmp_path / "f").samefile(tmp_path / "h")


@pytest.mark.parametrize("members", [("bin", "bin/new"), ("bin/new",)], ids=["with its directory", "without"])
async def test_a_directory_goes_into_the_one_that_a_link_leads_to(
    files: GuestFiles, tmp_path: Path, members: tuple[str, ...]
) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    entries = [
        (name, tarfile.DIRTYPE if name == "bin" else tarfile.REGTYPE, "", b"" if name == "bin" else b"x")
        for name in members
    ]
    await files.copy_in(str(tmp_path), pieces(archive_of(*entries)), preserve_owners=True)
    assert (tmp_path / "bin").is_symlink()
    assert (tmp_path / "usr" / "bin" / "new").read_bytes() == b"x"


async def test_a_link_of_somebody_leads_nowhere_that_is_not_theirs(files: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "secret").write_text("untouched")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "way").symlink_to("../roots")
    (tmp_path / "theirs" / "file").symlink_to("../roots/secret")
    for link in ("way", "file"):
        os.lchown(tmp_path / "theirs" / link, 65534, 65534)
    evil = archive_of(("theirs/way/secret", tarfile.REGTYPE, "", b"evil"))
    with pytest.raises(GuestError) as refused:
        await files.copy_in(str(tmp_path), pieces(evil))
    assert refused.value.reason is Reason.SYMLINK_REFUSED
    one = archive_of(("x", tarfile.REGTYPE, "", b"evil"))
    with pytest.raises(GuestError) as refused:
        await files.copy_in(str(tmp_path / "theirs"), pieces(one), name=b"file")
    assert refused.value.reason is Reason.SYMLINK_REFUSED
    assert (tmp_path / "roots" / "secret").read_text() == "untouched"


async def test_a_link_at_the_name_that_was_given_is_followed(files: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("deep/also")
    (tmp_path / "deep" / "also").symlink_to(tmp_path / "deep" / "real")
    (tmp_path / "dangling").symlink_to("deep/new")
    (tmp_path / "loop").symlink_to("loop")
    archive = archive_of(("x", tarfile.REGTYPE, "", b"new"))
    for name in (b"link", b"dangling", b"no\xffutf8"):
        await files.copy_in(str(tmp_path), pieces(archive), name=name)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "dangling").is_symlink()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"new"} == {
        "link",
        "also",
        "real",
        "dangling",
        "new",
        "no\udcffutf8",
    }
    with pytest.raises(GuestError) as refused:
        await files.copy_in(str(tmp_path), pieces(archive), name=b"loop")
    assert refused.value.reason is Reason.SYMLINK_REFUSED


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
        pytest.param(
            [
                ("d", tarfile.DIRTYPE, "", b""),
                ("x", tarfile.SYMTYPE, "d", b""),
                ("y", tarfile.LNKTYPE, "x", b""),
                ("y/evil", tarfile.REGTYPE, "", b"x"),
            ],
            Reason.SYMLINK_REFUSED,
            id="through a hard link to a link of its own",
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
