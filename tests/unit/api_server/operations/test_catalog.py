"""Images: what deletion and publication promise each other, and what can be said of one that is sent."""

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.rootfs import DirectoryLayerCache
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.caller import ROOT, Caller
from ingle.api_server.model.errors import Conflict, InvalidArgument, NotFound, Reason
from ingle.api_server.model.image_config import ImageConfig
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Image, VmState
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.ports.sources import CatalogEntry, Piece, Report, Upload
from unit.api_server.vmms import IMAGE, ME, VM, StillClock, world


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

    async def fetch(self, reference: str, logins: object, into: Path, report: Report) -> ImageConfig:
        (into / "rootfs.ext4").write_bytes(reference.encode())
        return ImageConfig(digest=reference)

    def catalog(self) -> tuple[CatalogEntry, ...]:
        return tuple(CatalogEntry(f"name-{number}", "") for number in range(3))


class NeverEnds(KeepsBytes):
    """Has registries that do not answer until a test says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()

    async def fetch(self, reference: str, logins: object, into: Path, report: Report) -> ImageConfig:
        self.asked.append(reference)
        await self.may_answer.wait()
        return await super().fetch(reference, logins, into, report)


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


def images_of(store: Any, library: Any, source: Any, default: Any) -> Images:
    """They bring no layers."""
    return Images(store, library, source, StillClock(), default, DirectoryLayerCache(Path("/nowhere")), int)


async def test_a_cancellation_in_the_middle_of_a_publication_is_told_with_what_stays(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        library = SlowLibrary(tmp_path / "images", Tools(tmp_path))
        images = images_of(store.images, library, cast("Any", SameEveryTime()), str)
        operations = Operations(store.operations, StillClock())

        async def register(progress: Progress) -> Image:
            return await images.register("a", "a test", upload("ignored"), progress, ME)

        running = await operations.begin("op-1", ROOT, OperationKind.REGISTER_IMAGE, register)
        await library.published.wait()
        cancelling = asyncio.create_task(running.cancel())
        await asyncio.sleep(0)
        library.go_on.set()
        await cancelling
        image = await store.images.get("a")
        assert running.operation.failure is not None
        assert running.operation.failure.message == (
            "cancelled; image 'a' had been got by then and stays, all else was undone"
        )
        assert running.operation.failure.remedy == f"ingle image delete {image.id}"


async def test_an_image_deleted_while_the_same_is_registered_anew_goes_as_a_whole(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        library = SlowLibrary(tmp_path / "images", Tools(tmp_path))
        images = images_of(store.images, library, cast("Any", SameEveryTime()), str)
        operations = Operations(store.operations, StillClock())

        async def register(progress: Progress) -> Image:
            return await images.register("a", "a test", upload("ignored"), progress, ME)

        library.go_on.set()
        image = await (await operations.begin("op-1", ROOT, OperationKind.REGISTER_IMAGE, register)).result()
        library.go_on.clear()
        library.published.clear()
        again = await operations.begin("op-2", ROOT, OperationKind.REGISTER_IMAGE, register)
        await library.published.wait()
        deleting = asyncio.create_task(images.delete(image, ME))
        for _ in range(100):  # as far as it gets
            await asyncio.sleep(0)
        library.go_on.set()
        await again.result()
        await deleting
        assert await store.images.all() == []
        assert not library.path(image.id).exists()


async def test_prune_takes_what_neither_a_name_nor_a_vm_points_to(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        library = DirectoryLibrary(tmp_path / "images", Tools(tmp_path))
        images = images_of(at.store.images, library, cast("Any", KeepsBytes()), str)

        async def register(name: str, content: str) -> Image:
            work = partial(images.register, name, "a test", upload(content), caller=ME)
            operation = await at.operations.begin(f"op-{content}", ROOT, OperationKind.REGISTER_IMAGE, work)
            return await operation.result()

        old = await register("a", "old")
        new = await register("a", "new")
        await register("debian:bookworm", "the name of the image that the VM uses")
        assert await images.unused(ME) == [replace(old, names=())]
        assert [image.id for image in await images.prune(ME)] == [old.id]
        assert not library.path(old.id).exists()
        assert library.path(new.id).exists()
        kept = {image.id: image.names for image in await at.store.images.all()}
        assert kept[new.id] == ("a",)
        assert kept[VM.settings.image_id] == ()
        assert await images.prune(ME) == []


async def test_a_name_has_one_lock_for_as_long_as_somebody_needs_it(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        images = images_of(
            store.images, DirectoryLibrary(tmp_path / "images", Tools(tmp_path)), cast("Any", KeepsBytes()), str
        )
        operations = Operations(store.operations, StillClock())
        for number in range(3):
            work = partial(images.pull, f"name-{number}", caller=ME)
            await (await operations.begin(f"op-{number}", ROOT, OperationKind.PULL_IMAGE, work)).result()
        await operations.close()
        gc.collect()
        assert not images._locks


async def test_a_slip_of_the_finger_is_told_with_the_name_that_was_meant(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        images = images_of(
            store.images, DirectoryLibrary(tmp_path / "images", Tools(tmp_path)), cast("Any", KeepsBytes()), str
        )
        operations = Operations(store.operations, StillClock())
        work = partial(images.register, "my-base:v1", "a test", upload("content"), caller=ME)
        await (await operations.begin("op-1", ROOT, OperationKind.REGISTER_IMAGE, work)).result()
        work = partial(images.register, "my:a-tag-that-is-not-at-all-alike", "a test", upload("more"), caller=ME)
        await (await operations.begin("op-2", ROOT, OperationKind.REGISTER_IMAGE, work)).result()
        with pytest.raises(NotFound, match=r"neither here nor in the catalog; did you mean my-base:v1\?"):
            await images.present("my-bsae:v1")
        with pytest.raises(NotFound, match=r"did you mean my-base:v1\?"):
            await images.present("my-base")
        with pytest.raises(NotFound, match=r"no image 'my'; did you mean my:a-tag-that-is-not-at-all-alike\?"):
            await store.images.get("my")
        with pytest.raises(NotFound, match=r"the catalog has no image 'nmae-1'; did you mean name-1\?"):
            images.check_pullable("nmae-1")
        with pytest.raises(
            NotFound, match="there is my-base:v1, my:a-tag-that-is-not-at-all-alike, name-0, name-1, name-2"
        ):
            await images.present("x" * 100_000)
        await operations.close()


async def test_a_name_that_nobody_has_is_a_registrys_unless_it_is_nearly_one_that_somebody_has(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        library = DirectoryLibrary(tmp_path / "images", Tools(tmp_path))
        images = images_of(store.images, library, cast("Any", KeepsBytes()), str)
        operations = Operations(store.operations, StillClock())
        work = partial(images.register, "small:latest", "a test", upload("content"), caller=ME)
        small = await (await operations.begin("op-1", ROOT, OperationKind.REGISTER_IMAGE, work)).result()
        assert await images.present("name-1") is None
        assert await images.present("small") == await images.present(small.id) == small
        with pytest.raises(NotFound, match=r"did you mean small:latest\?.*say which"):
            await images.present("smal:latest")
        for name in ("python:3.12", "docker://small", "docker.io/library/small", "localhost:5000/smal:latest"):
            assert await images.present(name) is None
        work = partial(images.fetch, "python:3.12", {}, caller=ME)
        python = await (await operations.begin("op-2", ROOT, OperationKind.PULL_IMAGE, work)).result()
        for name in ("python:3.12", "docker://python:3.12", "docker.io/python:3.12", "docker.io/library/python:3.12"):
            assert await images.present(name) == python
        assert await images.present("python:3.13") is None
        await operations.close()


async def test_a_name_that_somebody_gave_to_something_else_is_no_image_of_a_registry(tmp_path: Path) -> None:
    """Whatever that somebody says of where it is from."""
    async with SqliteStore(tmp_path / "ingle.db") as store:
        library = DirectoryLibrary(tmp_path / "images", Tools(tmp_path))
        images = images_of(store.images, library, cast("Any", KeepsBytes()), str)
        operations = Operations(store.operations, StillClock())
        somebody, another = Caller(1000), Caller(1001)

        async def fetch(caller: Caller) -> Image:
            work = partial(images.fetch, "org/app:v1", {}, caller=caller)
            begun = await operations.begin(f"op-{caller.uid}", caller.uid, OperationKind.PULL_IMAGE, work)
            return await begun.result()

        work = partial(images.register, "org/app:v1", "docker.io/org/app:v1", upload("a trap"), caller=somebody)
        trap = await (await operations.begin("op", 1000, OperationKind.REGISTER_IMAGE, work)).result()
        with pytest.raises(Conflict) as raised:
            await fetch(another)
        assert raised.value.reason is Reason.NOT_OWNER
        image = await fetch(somebody)
        assert image.id != trap.id
        assert image.config == ImageConfig(digest="docker.io/org/app:v1")
        assert image.source == "docker.io/org/app:v1"
        assert await store.images.get("org/app:v1") == image
        await operations.close()


@pytest.mark.parametrize("source", ["x" * 1001, "a\nline", "\x1b[2J"])
async def test_a_source_that_is_not_for_people_to_read_is_refused(source: str) -> None:
    images = images_of(cast("Any", None), cast("Any", None), cast("Any", None), str)
    with pytest.raises(InvalidArgument, match="printable"):
        await images.check_sent("a", source, ME)


async def test_pulls_of_one_user_at_once_have_a_bound_and_nobody_else_waits_for_them(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        source = NeverEnds()
        images = images_of(store.images, DirectoryLibrary(tmp_path / "images", Tools(tmp_path)), source, str)
        operations = Operations(store.operations, StillClock())

        async def pull(uid: int, name: str) -> Ongoing[Image]:
            work = partial(images.fetch, name, {}, caller=Caller(uid))
            return await operations.begin(f"op-{uid}-{name[-2:]}", uid, OperationKind.PULL_IMAGE, work)

        hers = [await pull(1, f"slow.example/x:{number:02}") for number in range(20)]
        hers.append(await pull(1, "org/app:99"))
        his = await pull(2, "org/app:99")
        async with asyncio.timeout(30):
            while "docker.io/org/app:99" not in source.asked:
                await asyncio.sleep(0.01)
        assert len(source.asked) < len(hers)
        source.may_answer.set()
        await asyncio.gather(*(each.result() for each in (*hers, his)))
        assert sorted(source.asked) == sorted({*source.asked})
        assert len(source.asked) == len(hers)
        await operations.close()


@pytest.mark.parametrize(
    ("changes", "text", "told"),
    [
        ({"owners": (1001,)}, "python:3.12", True),
        ({"owners": (1000, 1001)}, "python:3.12", False),
        ({"owners": (ROOT,)}, "python:3.12", False),
        ({"owners": (1001,)}, IMAGE.id, False),
        ({"owners": (1001,)}, "a", False),
        ({"owners": (1001,), "config": ImageConfig("sha256:0")}, "python:3.12", True),
        (
            {"owners": (1001,), "config": ImageConfig("sha256:0"), "source": "docker.io/library/python:3.12"},
            "python:3.12",
            False,
        ),
    ],
)
def test_an_image_that_another_user_calls_so_is_told(changes: Any, text: str, told: bool) -> None:
    source = SimpleNamespace(catalog=lambda: (CatalogEntry("a", "a test"),))
    said = images_of(None, None, source, str).of_a_stranger(replace(IMAGE, **changes), text, Caller(1000))
    assert bool(said) is told
    assert not told or "made by user 1001" in said
