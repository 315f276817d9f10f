"""The library: an item is whole or absent, whatever happens while it is made or removed."""

import asyncio
import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest

from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.host.rootlike import namespace
from ingle.api_server.host.tool import Tools


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "library"


@pytest.fixture
def library(root: Path, tools: Tools) -> DirectoryLibrary:
    return DirectoryLibrary(root, tools)


def everything(root: Path) -> list[str]:
    """All files and symlinks."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def fill(workspace: Path, content: str = "content") -> None:
    (workspace / "vmlinux").write_text(content)
    (workspace / "modules").mkdir()
    (workspace / "modules" / "00-a.ko").write_text("a")


async def sealed(library: DirectoryLibrary, workspace: Path) -> str:
    """Published, too."""
    item, _ = await library.seal(workspace)
    await library.publish(workspace, item)
    return item


async def publish(library: DirectoryLibrary, content: str = "content", op_id: str = "op-1") -> str:
    async with library.workspace(op_id) as workspace:
        fill(workspace, content)
        return await sealed(library, workspace)


async def test_a_lone_file_is_its_own_hash(library: DirectoryLibrary) -> None:
    async with library.workspace("op-1") as workspace:
        (workspace / "rootfs.ext4").write_bytes(b"image")
        item = await sealed(library, workspace)
    assert item == hashlib.sha256(b"image").hexdigest()
    assert (library.path(item) / "rootfs.ext4").read_bytes() == b"image"


async def test_how_long_an_item_is_and_what_it_takes_of_the_disk_are_two_things(library: DirectoryLibrary) -> None:
    async with library.workspace("op-1") as workspace:
        with (workspace / "rootfs.ext4").open("wb") as file:
            file.truncate(1 << 30)
        item, size = await library.seal(workspace)
        await library.publish(workspace, item)
    assert size == 1 << 30
    assert library.allocated_bytes(item) < 1 << 20
    assert library.allocated_bytes(await publish(library)) > 0
    assert library.allocated_bytes("ab" * 32) == 0


async def test_names_and_contents_make_the_id(library: DirectoryLibrary) -> None:
    ids = {await publish(library), await publish(library, "other")}
    async with library.workspace("op-2") as workspace:
        fill(workspace)
        (workspace / "modules" / "00-a.ko").rename(workspace / "modules" / "01-a.ko")
        ids.add(await sealed(library, workspace))
    assert len(ids) == 3
    assert all(len(item) == 64 for item in ids)


async def test_the_same_content_is_kept_once(library: DirectoryLibrary, root: Path) -> None:
    first = await publish(library)
    assert await publish(library, op_id="op-2") == first
    assert everything(root) == [f"{first}/modules/00-a.ko", f"{first}/vmlinux"]


async def test_what_is_published_is_read_only(library: DirectoryLibrary) -> None:
    item = library.path(await publish(library))
    assert stat.S_IMODE((item / "vmlinux").stat().st_mode) == 0o444


async def test_a_workspace_that_was_not_published_goes(library: DirectoryLibrary, root: Path) -> None:
    async def fail() -> None:
        async with library.workspace("op-1") as workspace:
            fill(workspace)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await fail()
    assert everything(root) == []


async def test_a_cancelled_operation_leaves_nothing(library: DirectoryLibrary, root: Path) -> None:
    async def work() -> None:
        async with library.workspace("op-1") as workspace:
            fill(workspace)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    while not everything(root):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert everything(root) == []


async def test_a_workspace_is_private(library: DirectoryLibrary) -> None:
    async with library.workspace("op-1") as workspace:
        assert stat.S_IMODE(workspace.stat().st_mode) == 0o700


async def test_a_removed_item_is_gone_and_removing_it_again_is_fine(library: DirectoryLibrary, root: Path) -> None:
    item = await publish(library)
    await library.remove(item)
    await library.remove(item)
    assert not library.path(item).exists()
    assert everything(root) == []


async def test_to_hash_what_is_large_ends_when_it_is_cancelled(library: DirectoryLibrary, root: Path) -> None:
    """A hole takes no room and no time to be sent, but hours to be hashed."""
    async with library.workspace("op-1") as workspace:
        (workspace / "rootfs.ext4").touch()
        os.truncate(workspace / "rootfs.ext4", 15 << 40)
        task = asyncio.create_task(library.seal(workspace))
        await asyncio.sleep(0.1)
        task.cancel()
        async with asyncio.timeout(60):
            await asyncio.wait([task])
        assert task.cancelled()
    assert everything(root) == []


async def test_sweeping_keeps_what_is_known_and_nothing_else(library: DirectoryLibrary, root: Path) -> None:
    known, unknown = await publish(library), await publish(library, "nobody recorded it")
    for half in (root / ".work" / "op-dead", root / ".trash" / f"{unknown}-dead"):
        half.mkdir(parents=True)
        fill(half)
    await library.sweep({known})
    assert everything(root) == [f"{known}/modules/00-a.ko", f"{known}/vmlinux"]


async def test_sweeping_a_library_that_was_never_used_is_fine(library: DirectoryLibrary, root: Path) -> None:
    await library.sweep(())
    assert not root.exists()


async def test_what_was_made_in_a_user_namespace_can_be_swept(
    library: DirectoryLibrary, root: Path, tools: Tools
) -> None:
    """Its files belong to other ids outside, as an ordinary user's mmdebstrap leaves them when it is killed."""
    half = root / ".work" / "op-dead"
    half.mkdir(parents=True)
    prefix = await namespace(tools)
    assert prefix is not None
    make = 'mkdir -p "$1/etc" && touch "$1/etc/file" && chown -R 7:7 "$1/etc" && chmod 755 "$1/etc"'
    await tools.run([*prefix, "--", "sh", "-c", make, "sh", half])
    await library.sweep(())
    assert not half.exists()


PUBLISHER = """
import asyncio, os, signal, sys
from pathlib import Path
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.host.tool import Tools

calls_left = int(sys.argv[2])

def count(event, args):
    # Audit events come before what they tell of: killed here, it has not happened yet.
    global calls_left
    if event in {"open", "os.rename", "os.mkdir", "os.chmod", "os.remove", "os.rmdir", "os.link"}:
        if any(isinstance(arg, str) and sys.argv[1] in arg for arg in map(str, args)):
            calls_left -= 1
            if calls_left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

async def main():
    library = DirectoryLibrary(Path(sys.argv[1]), Tools(Path(sys.argv[1])))
    async with library.workspace("op-1") as workspace:
        (workspace / "vmlinux").write_text("content")
        (workspace / "modules").mkdir()
        (workspace / "modules" / "00-a.ko").write_text("a")
        item, _ = await library.seal(workspace)
        await library.publish(workspace, item)
    await library.remove(item)

sys.addaudithook(count)
asyncio.run(main())
"""


async def test_killed_at_any_instant_it_leaves_an_item_whole_or_absent(library: DirectoryLibrary, root: Path) -> None:
    """A process that publishes and removes, and kills itself before its first call that touches the library; then
    another that does so before its second, and so on."""
    item = await publish(library)
    whole = everything(root)
    await library.remove(item)
    outcomes = set()
    for calls in range(100):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PUBLISHER, str(root), str(calls), stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert process.returncode in (0, -9), errors
        assert everything(library.path(item)) in ([], ["modules/00-a.ko", "vmlinux"])
        await library.sweep({item})
        assert everything(root) in ([], whole)
        outcomes.add(bool(everything(root)))
        await library.remove(item)
        if process.returncode == 0:
            break
    else:
        pytest.fail("it never got through")
    assert outcomes == {False, True}
    assert os.listdir(root / ".work") == []
    assert os.listdir(root / ".trash") == []
