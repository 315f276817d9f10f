"""Images: what deletion and publication promise each other, and what can be said of one that is sent."""

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import InvalidArgument, NotFound
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Image, VmState
from ingle.api_server.operations.catalog import Images
from ingle.api_server.operations.runner import Operations, Progress
from ingle.api_server.ports.sources import CatalogEntry, Piece, Report, Upload
from unit.server.vmms import VM, world


class SameEveryTime:
    """Makes an image of a few bytes, always the same."""

    async def receive(self, rootfs: Upload, into: Path, report: Report) -> None:
        (into / "rootfs.ext4").write_bytes(b"a root file system")


class KeepsBytes:
    """Makes an image of the bytes that come."""

    async def receive(self, rootfs: Upload, into: Path, report: Report) -> None:
        (into / "rootfs.ext4").write_bytes(b"".join([piece.data async for piece in rootfs]))

    async def pull(self, name: str, into: Path, report: Report) -> None:
        (into / "rootfs.ext4").write_bytes(name.encode())

    def catalog(self) -> tuple[CatalogEntry, ...]:
        return tuple(CatalogEntry(f"name-{number}", "") for number in range(3))


async def upload(content: str) -> AsyncIterator[Piece]:
    yield Piece(0, content.encode())


class SlowLibrary(DirectoryLibrary):
    """Takes until it is told between publishing an item and saying so."""

    def __init__(self, root: Path, tools: Tools) -> None:
        super().__init__(root, tools)
        self.published = asyncio.Event()
        self.go_on = asyncio.Event()

    async def publish(self, workspace: Path, item_id: str) -> None:
        await super().publish(workspace, item_id)
        self.published.set()
        await self.go_on.wait()


async def test_a_cancellation_in_the_middle_of_a_publication_is_told_with_what_stays(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        library = SlowLibrary(tmp_path / "images", Tools(tmp_path))
        images = Images(store, library, cast("Any", SameEveryTime()))
        operations = Operations(store)

        async def register(progress: Progress) -> Image:
            return await images.register("a", "a test", upload("ignored"), progress)

        running = await operations.begin("op-1", OperationKind.REGISTER_IMAGE, register)
        await library.published.wait()
        cancelling = asyncio.create_task(running.cancel())
        await asyncio.sleep(0)
        library.go_on.set()
        await cancelling
        image = await store.image("a")
        assert running.operation.failure is not None
        assert running.operation.failure.message == (
            "cancelled; image 'a' had been got by then and stays, all else was undone"
        )
        assert running.operation.failure.remedy == f"ingle image delete {image.id}"


async def test_an_image_deleted_while_the_same_is_registered_anew_goes_as_a_whole(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        library = SlowLibrary(tmp_path / "images", Tools(tmp_path))
        images = Images(store, library, cast("Any", SameEveryTime()))
        operations = Operations(store)

        async def register(progress: Progress) -> Image:
            return await images.register("a", "a test", upload("ignored"), progress)

        library.go_on.set()
        image = await (await operations.begin("op-1", OperationKind.REGISTER_IMAGE, register)).result()
        library.go_on.clear()
        library.published.clear()
        again = await operations.begin("op-2", OperationKind.REGISTER_IMAGE, register)
        await library.published.wait()
        deleting = asyncio.create_task(images.delete(image))
        for _ in range(100):  # as far as it gets
            await asyncio.sleep(0)
        library.go_on.set()
        await again.result()
        await deleting
        assert await store.images() == []
        assert not library.path(image.id).exists()


async def test_prune_takes_what_neither_a_name_nor_a_vm_points_to(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        library = DirectoryLibrary(tmp_path / "images", Tools(tmp_path))
        images = Images(at.store, library, cast("Any", KeepsBytes()))

        async def register(name: str, content: str) -> Image:
            work = partial(images.register, name, "a test", upload(content))
            operation = await at.operations.begin(f"op-{content}", OperationKind.REGISTER_IMAGE, work)
            return await operation.result()

        old = await register("a", "old")
        new = await register("a", "new")
        await register("debian:bookworm", "the name of the image that the VM uses")
        assert await images.unused() == [replace(old, names=())]
        assert [image.id for image in await images.prune()] == [old.id]
        assert not library.path(old.id).exists()
        assert library.path(new.id).exists()
        kept = {image.id: image.names for image in await at.store.images()}
        assert kept[new.id] == ("a",)
        assert kept[VM.image_id] == ()
        assert await images.prune() == []


async def test_a_name_has_one_lock_for_as_long_as_somebody_needs_it(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        images = Images(store, DirectoryLibrary(tmp_path / "images", Tools(tmp_path)), cast("Any", KeepsBytes()))
        operations = Operations(store)
        for number in range(3):
            work = partial(images.pull, f"name-{number}")
            await (await operations.begin(f"op-{number}", OperationKind.PULL_IMAGE, work)).result()
        await operations.close()
        gc.collect()
        assert not images._locks


async def test_a_slip_of_the_finger_is_told_with_the_name_that_was_meant(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        images = Images(store, DirectoryLibrary(tmp_path / "images", Tools(tmp_path)), cast("Any", KeepsBytes()))
        operations = Operations(store)
        work = partial(images.register, "my-base:v1", "a test", upload("content"))
        await (await operations.begin("op-1", OperationKind.REGISTER_IMAGE, work)).result()
        work = partial(images.register, "my:a-tag-that-is-not-at-all-alike", "a test", upload("more"))
        await (await operations.begin("op-2", OperationKind.REGISTER_IMAGE, work)).result()
        with pytest.raises(NotFound, match=r"neither here nor in the catalog; did you mean my-base:v1\?"):
            await images.present("my-bsae:v1")
        with pytest.raises(NotFound, match=r"did you mean my-base:v1\?"):
            await images.present("my-base")
        with pytest.raises(NotFound, match=r"no image 'my'; did you mean my:a-tag-that-is-not-at-all-alike\?"):
            await store.image("my")
        with pytest.raises(NotFound, match=r"the catalog has no image 'nmae-1'; did you mean name-1\?"):
            images.check_pullable("nmae-1")
        with pytest.raises(
            NotFound, match="there is my-base:v1, my:a-tag-that-is-not-at-all-alike, name-0, name-1, name-2"
        ):
            await images.present("x" * 100_000)
        await operations.close()


@pytest.mark.parametrize("source", ["x" * 1001, "a\nline", "\x1b[2J"])
def test_a_source_that_is_not_for_people_to_read_is_refused(source: str) -> None:
    with pytest.raises(InvalidArgument, match="printable"):
        Images(cast("Any", None), cast("Any", None), cast("Any", None)).check_sent("a", source)
