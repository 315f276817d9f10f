"""Files: read, written, listed, changed; and every refusal by its name."""

import asyncio
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.model.guest_files import FileType, ReadEnd, ReadSpec, WriteSpec
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.ports.guest_files import GuestFiles


@pytest.fixture
def files(channel: GuestChannel) -> GuestFiles:
    return channel.files


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def read(files: GuestFiles, path: Path, **limits: int) -> tuple[bytes, ReadEnd]:
    spec = replace(ReadSpec(str(path)), **limits)  # type: ignore[arg-type] # all of them numbers
    *content, end = [event async for event in files.read(spec)]
    assert isinstance(end, ReadEnd)
    return b"".join(piece for piece in content if isinstance(piece, bytes)), end


async def reason(operation: object) -> Reason:
    with pytest.raises(GuestError) as refused:
        await operation  # type: ignore[misc]
    return refused.value.reason


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5000], ids=["empty", "a byte", "binary"])
async def test_what_is_written_is_read(files: GuestFiles, tmp_path: Path, content: bytes) -> None:
    info = await files.write(WriteSpec(str(tmp_path / "file")), pieces(content))
    assert (info.name, info.type, info.mode, info.size_bytes) == ("file", FileType.REGULAR, 0o644, len(content))
    assert await read(files, tmp_path / "file") == (content, ReadEnd(info, truncated=False, next_offset=len(content)))


@pytest.mark.parametrize("name", ["ünïcödé ☃", "new\nline", " ", "-rf", "x" * 255], ids=ascii)
async def test_names_are_any_that_a_file_can_have(files: GuestFiles, tmp_path: Path, name: str) -> None:
    await files.write(WriteSpec(str(tmp_path / name)), pieces(b"found"))
    assert (tmp_path / name).read_bytes() == b"found"
    assert [entry.name for entry in (await files.list(str(tmp_path))).entries] == [name]


@pytest.mark.parametrize(
    ("limits", "content", "truncated"),
    [
        ({"offset": 4}, b"two\nthree", False),
        ({"offset": 100}, b"", False),
        ({"max_bytes": 3}, b"one", True),
        ({"max_bytes": 13}, b"one\ntwo\nthree", False),
        ({"max_lines": 2}, b"one\ntwo\n", True),
        ({"max_lines": 3}, b"one\ntwo\nthree", False),
        ({"offset": 4, "max_lines": 1, "max_bytes": 2}, b"tw", True),
    ],
    ids=str,
)
async def test_a_part_says_whether_there_is_more(
    files: GuestFiles, tmp_path: Path, limits: dict[str, int], content: bytes, truncated: bool
) -> None:
    (tmp_path / "file").write_bytes(b"one\ntwo\nthree")
    got, end = await read(files, tmp_path / "file", **limits)
    assert (got, end.truncated) == (content, truncated)
    assert end.next_offset == limits.get("offset", 0) + len(content)


async def test_proc_is_read_to_its_end_though_its_size_is_0(files: GuestFiles) -> None:
    assert (await read(files, Path("/proc/version")))[0] == Path("/proc/version").read_bytes()


async def test_readers_see_the_old_content_or_the_new(files: GuestFiles, tmp_path: Path) -> None:
    path = tmp_path / "file"
    old, new = b"a" * 300_000, b"b" * 500_000
    path.write_bytes(old)
    written = asyncio.Event()

    async def look() -> None:
        while not written.is_set():
            assert (await read(files, path))[0] in {old, new}

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(look())
        for content in (new, old) * 10:
            await files.write(WriteSpec(str(path)), pieces(content[:1000], content[1000:]))
        written.set()
    assert list(tmp_path.iterdir()) == [path]


async def test_a_write_that_is_given_up_leaves_the_file_as_it_was(files: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    async def broken() -> AsyncIterator[bytes]:
        yield b"new" * 100_000
        raise ConnectionError("the caller is gone")

    with pytest.raises(ConnectionError):
        await files.write(WriteSpec(str(tmp_path / "file")), broken())
    async with asyncio.timeout(20):
        while len(list(tmp_path.iterdir())) > 1:
            await asyncio.sleep(0.005)
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_a_replaced_file_keeps_mode_and_owner(files: GuestFiles, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.chown(path, 1, 2)
    path.chmod(0o4751)
    info = await files.write(WriteSpec(str(path)), pieces(b"new"))
    assert (info.uid, info.gid, info.mode) == (1, 2, 0o4751)


async def test_mode_owner_and_parents_are_as_wanted(files: GuestFiles, tmp_path: Path) -> None:
    spec = WriteSpec(str(tmp_path / "a/b/c"), mode=0o600, owner="daemon:12345", parents=True)
    info = await files.write(spec, pieces(b"x"))
    assert (info.uid, info.gid, info.mode) == (1, 12345, 0o600)
    assert await reason(files.write(WriteSpec(str(tmp_path / "x"), owner="nobody-here"), pieces())) is (
        Reason.GUEST_USER_NOT_FOUND
    )


async def test_append_adds_and_makes(files: GuestFiles, tmp_path: Path) -> None:
    for piece in (b"one", b"two"):
        await files.write(WriteSpec(str(tmp_path / "log"), append=True), pieces(piece))
    assert (tmp_path / "log").read_bytes() == b"onetwo"


async def test_who_may_write_a_file_but_not_beside_it_may_append(files: GuestFiles) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        log = Path(directory) / "log"
        log.write_bytes(b"one")
        os.chown(log, 65534, 65534)
        await files.write(WriteSpec(str(log), append=True, user="nobody"), pieces(b"two"))
        assert log.read_bytes() == b"onetwo"


async def test_no_link_is_followed_by_a_write_or_a_removal(files: GuestFiles, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    assert await reason(files.write(WriteSpec(str(link), append=True), pieces(b"x"))) is Reason.SYMLINK_REFUSED
    await files.write(WriteSpec(str(link)), pieces(b"mine"))
    assert (link.read_bytes(), link.is_symlink()) == (b"mine", False)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "out").symlink_to(tmp_path)
    await files.remove(str(tmp_path / "tree"), recursive=True)
    (tmp_path / "way").symlink_to(tmp_path)
    await files.remove(str(tmp_path / "way"), recursive=True)
    assert target.read_bytes() == b"precious"


async def test_stat_tells_of_the_link_or_of_what_it_leads_to(files: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").touch()
    link, file = [await files.stat(str(tmp_path / "link"), follow=follow) for follow in (False, True)]
    assert (link.type, link.link_target, file.type) == (FileType.SYMLINK, "file", FileType.REGULAR)
    assert (await files.stat("/dev/null")).type is FileType.CHARACTER_DEVICE


async def test_a_long_listing_comes_sorted_in_pages(files: GuestFiles, tmp_path: Path) -> None:
    names = sorted(f"{number:x}" for number in range(10_500))
    for name in names:
        (tmp_path / name).touch()
    first = await files.list(str(tmp_path))
    assert ([entry.name for entry in first.entries], first.truncated) == (names[:10_000], True)
    rest = await files.list(str(tmp_path), after=first.next_after)
    assert ([entry.name for entry in rest.entries], rest.truncated) == (names[10_000:], False)
    few = await files.list(str(tmp_path), max_entries=3)
    assert ([entry.name for entry in few.entries], few.truncated) == (names[:3], True)


async def test_no_page_leaves_out_a_name_that_is_no_text(files: GuestFiles, tmp_path: Path) -> None:
    names = sorted(
        [b"\xff%d" % number for number in range(5)] + [b"\xfe", "ü%20/".encode()[:-1], b"\xef\xbf\xbd", b"z"]
    )
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    listed: list[str] = []
    page = await files.list(str(tmp_path), max_entries=2)
    while page.truncated:
        listed += [entry.name for entry in page.entries]
        page = await files.list(str(tmp_path), max_entries=2, after=page.next_after)
    listed += [entry.name for entry in page.entries]
    assert listed == [name.decode(errors="replace") for name in names]
    assert await reason(files.list(str(tmp_path), after="%zz")) is Reason.INVALID_ARGUMENT


async def test_directories_are_made_and_renamed(files: GuestFiles, tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    assert await reason(files.make_directory(str(deep))) is Reason.FILE_NOT_FOUND
    assert (await files.make_directory(str(deep), mode=0o1777, parents=True)).mode == 0o1777
    assert (await files.make_directory(str(deep), parents=True)).mode == 0o1777
    assert await reason(files.make_directory(str(deep))) is Reason.FILE_EXISTS
    await files.rename(str(deep), str(tmp_path / "c"))
    (tmp_path / "d").mkdir()
    assert await reason(files.rename(str(tmp_path / "c"), str(tmp_path / "d"))) is Reason.FILE_EXISTS
    await files.rename(str(tmp_path / "c"), str(tmp_path / "d"), replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d"]


async def test_every_refusal_has_a_name(files: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    nowhere, file = str(tmp_path / "nowhere"), str(tmp_path / "file")
    assert await reason(read(files, tmp_path / "nowhere")) is Reason.FILE_NOT_FOUND
    assert await reason(read(files, tmp_path)) is Reason.IS_A_DIRECTORY
    assert await reason(read(files, tmp_path / "loop")) is Reason.SYMLINK_REFUSED
    assert await reason(read(files, tmp_path / "pipe")) is Reason.NOT_A_REGULAR_FILE
    assert await reason(read(files, tmp_path / ("x" * 256))) is Reason.FILE_NAME_TOO_LONG
    assert await reason(files.write(WriteSpec(str(tmp_path)), pieces())) is Reason.IS_A_DIRECTORY
    assert await reason(files.write(WriteSpec(str(tmp_path / "pipe")), pieces())) is Reason.NOT_A_REGULAR_FILE
    assert await reason(files.write(WriteSpec(file + "/x"), pieces())) is Reason.NOT_A_DIRECTORY
    assert await reason(files.list(file)) is Reason.NOT_A_DIRECTORY
    assert await reason(files.list(nowhere)) is Reason.FILE_NOT_FOUND
    assert await reason(files.remove(nowhere, recursive=True)) is Reason.FILE_NOT_FOUND
    assert await reason(files.remove(str(tmp_path))) is Reason.DIRECTORY_NOT_EMPTY
    assert await reason(files.remove("/", recursive=True)) is Reason.INVALID_ARGUMENT
    assert await reason(files.rename(file, "/proc/x")) is Reason.CROSS_DEVICE
    (tmp_path / "d").mkdir()
    assert await reason(files.rename(str(tmp_path / "d"), str(tmp_path / "d" / "e"))) is Reason.INVALID_ARGUMENT
    assert await reason(files.rename(file, str(tmp_path / "d"), replace=True)) is Reason.IS_A_DIRECTORY
    assert await reason(files.stat("")) is Reason.INVALID_ARGUMENT
    assert await reason(files.stat("/", user="nobody-here")) is Reason.GUEST_USER_NOT_FOUND


async def test_what_is_done_for_a_user_is_done_with_the_users_rights(files: GuestFiles) -> None:
    assert await reason(read_as(files, "/etc/shadow", "nobody")) is Reason.FILE_PERMISSION_DENIED
    assert await reason(files.write(WriteSpec("/etc/ingle-test", user="nobody"), pieces())) is (
        Reason.FILE_PERMISSION_DENIED
    )
    assert await reason(files.remove("/etc/passwd", user="nobody")) is Reason.FILE_PERMISSION_DENIED
    mine = await files.write(WriteSpec(f"/tmp/ingle-test-{os.getpid()}", user="nobody"), pieces(b"x"))
    try:
        assert mine.uid == 65534
        assert await reason(files.write(WriteSpec(f"/tmp/{mine.name}", owner="root", user="nobody"), pieces())) is (
            Reason.FILE_PERMISSION_DENIED
        )
        assert (await read(files, Path("/etc/shadow")))[0]  # the agent itself is as mighty as before
    finally:
        await files.remove(f"/tmp/{mine.name}", user="nobody")


async def read_as(files: GuestFiles, path: str, user: str) -> None:
    async for _ in files.read(ReadSpec(path, user=user)):
        pass


@pytest.fixture
def crowded(agent_binary: Path, tmp_path: Path) -> Iterator[GuestFiles]:
    """An agent that sees a file system of 64 KiB at `tmp_path`/small, in a mount namespace of its own."""
    (tmp_path / "small").mkdir()
    script = 'mount -t tmpfs -o size=64k none "$1" && exec "$2" --listen "unix:$3"'
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    socket = tmp_path / "agent.sock"
    process = subprocess.Popen(
        ["unshare", *namespaces, "sh", "-c", script, "sh", tmp_path / "small", agent_binary, socket],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ingle-agent ready\n"
        yield Dialler().channel(AgentEndpoint(UnixAddress(str(socket)))).files
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_a_full_disk_is_told_and_the_file_stays_as_it_was(crowded: GuestFiles, tmp_path: Path) -> None:
    path = str(tmp_path / "small" / "file")
    await crowded.write(WriteSpec(path), pieces(b"old"))
    too_much = pieces(*[bytes(65_536)] * 100)
    assert await reason(crowded.write(WriteSpec(path), too_much)) is Reason.GUEST_DISK_FULL
    assert (await read(crowded, Path(path)))[0] == b"old"
    assert [entry.name for entry in (await crowded.list(str(tmp_path / "small"))).entries] == ["file"]


async def test_a_full_disk_leaves_no_half_of_a_copied_file(crowded: GuestFiles, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, size in (("small", 10), ("large", 1_000_000)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(bytes(size)))
    refused = crowded.copy_in(str(tmp_path / "small"), pieces(buffer.getvalue()))
    assert await reason(refused) is Reason.GUEST_DISK_FULL
    assert [entry.name for entry in (await crowded.list(str(tmp_path / "small"))).entries] == ["small"]
