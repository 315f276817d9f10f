"""Images: what deletion and publication promise each other, and paths nobody could read."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import BadFile
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Image
from ingle.api_server.operations.catalog import Images
from ingle.api_server.operations.runner import Operations, Progress
from ingle.api_server.ports.sources import Report


class SameEveryTime:
    """Makes an image of a few bytes, always the same."""

    async def convert(self, rootfs: Path, into: Path, report: Report) -> None:
        (into / "rootfs.ext4").write_bytes(b"a root file system")


class SlowLibrary(DirectoryLibrary):
    """Takes until it is told between publishing an item and saying so."""

    def __init__(self, root: Path, tools: Tools) -> None:
        super().__init__(root, tools)
        self.published = asyncio.Event()
        self.go_on = asyncio.Event()

    async def publish(self, workspace: Path) -> str:
        item_id = await super().publish(workspace)
        self.published.set()
        await self.go_on.wait()
        return item_id


async def test_an_image_deleted_while_the_same_is_registered_anew_goes_as_a_whole(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        library = SlowLibrary(tmp_path / "images", Tools(tmp_path))
        images = Images(store, library, cast("Any", SameEveryTime()))
        operations = Operations(store)

        async def register(progress: Progress) -> Image:
            return await images.register("a", tmp_path, progress)

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


@pytest.mark.parametrize("path", ["/etc/passwd/below-a-file", "/" + "x" * 5000, "/with\0nul"])
def test_a_path_that_can_not_be_read_is_a_clear_refusal(path: str) -> None:
    with pytest.raises(BadFile, match="root file system"):
        Images(cast("Any", None), cast("Any", None), cast("Any", None)).check_register("a", Path(path))
