"""Images and kernels: bring them here, hand them out, delete them.

Both are content-addressed: what is published is whole, and a name is only a pointer. One lock a name keeps two pulls
of the same thing from doing the work twice; one lock a library keeps a deletion from taking what is just published.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from ingle.api_server.model.errors import Conflict, InvalidArgument, NotFound, Reason
from ingle.api_server.model.operation import Failure
from ingle.api_server.model.spec import check_catalog_name
from ingle.api_server.model.vm import Image, Kernel
from ingle.api_server.operations.runner import Progress
from ingle.api_server.pipeline import completed, uninterrupted
from ingle.api_server.ports.sources import CatalogEntry, ImageSource, KernelFacts, KernelSource, Library, Report, Upload
from ingle.api_server.ports.store import Store

Item = TypeVar("Item", Image, Kernel)
Facts = TypeVar("Facts")
Facts_co = TypeVar("Facts_co", covariant=True)

_LONGEST_SOURCE = 1000
_LONGEST_TYPED = 100
_TOLD = 20


class Source(Protocol[Facts_co]):
    """What ImageSource and KernelSource have in common; the latter finds out facts on the way."""

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """Names that `pull` knows."""

    async def pull(self, name: str, into: Path, report: Report) -> Facts_co:
        """Make the catalog's `name`."""


class _Catalog(ABC, Generic[Item, Facts]):
    """One kind of thing."""

    noun: ClassVar[str]
    missing: ClassVar[Reason]

    def __init__(self, store: Store, library: Library, source: Source[Facts]) -> None:
        self._store = store
        self._library = library
        self._catalog = source
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._library_lock = asyncio.Lock()

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """What can be pulled."""
        return self._catalog.catalog()

    def check_sent(self, name: str, source: str) -> None:
        """Raise InvalidArgument when what is sent could not be added."""
        check_catalog_name(name, self.noun)
        if len(source) > _LONGEST_SOURCE or not source.isprintable():
            raise InvalidArgument(f"source: at most {_LONGEST_SOURCE} printable characters are allowed")

    def check_pullable(self, name: str) -> None:
        """Raise NotFound unless the catalog has `name`."""
        names = [entry.name for entry in self.catalog()]
        if name not in names:
            problem = f"the catalog has no {self.noun} {name!r}"
            raise NotFound(self.missing, f"{problem}{_meant(name, names)}", f"ingle {self.noun} catalog")

    async def present(self, reference: str) -> Item | None:
        """What `reference` stands for, or None when it is not here but can be pulled. Raises NotFound when it can't."""
        try:
            return await self._find(reference)
        except NotFound as error:
            if error.reason is not self.missing:
                raise
        pullable: list[str] = [entry.name for entry in self.catalog()]
        if reference in pullable:
            return None
        names = [*pullable, *(name for item in await self._all() for name in item.names)]
        problem = f"no {self.noun} {reference!r}, neither here nor in the catalog"
        remedy = f"ingle {self.noun} list; ingle {self.noun} catalog"
        raise NotFound(self.missing, f"{problem}{_meant(reference, names)}", remedy)

    async def pull(self, name: str, progress: Progress, *, refresh: bool = False) -> Item:
        """Bring the catalog's `name` here, unless it is and `refresh` is not asked."""
        async with self._lock(name):
            if not refresh and (item := await self.present(name)) is not None:
                return item
            progress.stage(f"pull-{self.noun}", f"getting {self.noun} {name}")
            return await self._add(name, name, progress, partial(self._catalog.pull, name))

    async def delete(self, item: Item) -> None:
        """Delete it and its names. Raises Conflict(IN_USE)."""
        await uninterrupted(self._delete(item))

    async def unused(self) -> list[Item]:
        """Those that no name and no VM points to: a name was given to another, and what it stood for stayed."""
        used = {item_id for vm in await self._store.vms() for item_id in (vm.image_id, vm.kernel_id)}
        return [item for item in await self._all() if not item.names and item.id not in used]

    async def prune(self) -> list[Item]:
        """Delete the unused; answers them."""
        return await uninterrupted(self._prune())

    def _lock(self, name: str) -> asyncio.Lock:
        """The name's lock: one as long as anybody holds it or waits for it."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def _add(
        self, name: str, source: str, progress: Progress, make: Callable[[Path, Report], Awaitable[Facts]]
    ) -> Item:
        async with self._library.workspace(progress.operation.id) as workspace:
            facts = await make(workspace, progress.report)
            size = sum(file.stat().st_size for file in workspace.rglob("*") if file.is_file())
            progress.stage(f"publish-{self.noun}", f"checking and publishing the {self.noun}")
            item_id = await self._library.seal(workspace)
            try:
                return await completed(self._publish(workspace, item_id, name, facts, size, source))
            except asyncio.CancelledError:
                await uninterrupted(self._tell_what_stays(name, progress))
                raise

    async def _tell_what_stays(self, name: str, progress: Progress) -> None:
        """Half a publication would be no good: a cancellation that comes in its middle comes too late for it."""
        with suppress(NotFound):
            item = await self._find(name)
            progress.if_cancelled = Failure(
                Reason.OPERATION_CANCELLED,
                f"cancelled; {self.noun} {name!r} had been got by then and stays, all else was undone",
                f"ingle {self.noun} delete {item.id}",
            )

    async def _publish(self, workspace: Path, item_id: str, name: str, facts: Facts, size: int, source: str) -> Item:
        async with self._library_lock:
            await self._library.publish(workspace, item_id)
            return await self._record(item_id, name, facts, size, source)

    async def _delete(self, item: Item) -> None:
        async with self._library_lock:
            await self._forget(item.id)
            await self._library.remove(item.id)

    async def _prune(self) -> list[Item]:
        pruned = []
        async with self._library_lock:  # so nothing is given a name meanwhile
            for item in await self.unused():
                try:
                    await self._forget(item.id)
                except Conflict:  # a VM has come to use it
                    continue
                await self._library.remove(item.id)
                pruned.append(item)
        return pruned

    @abstractmethod
    async def _find(self, reference: str) -> Item:
        """Look it up in the store."""

    @abstractmethod
    async def _all(self) -> list[Item]:
        """All in the store."""

    @abstractmethod
    async def _record(self, item_id: str, name: str, facts: Facts, size: int, source: str) -> Item:
        """Store it under `name`."""

    @abstractmethod
    async def _forget(self, item_id: str) -> None:
        """Take it out of the store. Raises Conflict(IN_USE)."""


def _meant(name: str, names: Sequence[str]) -> str:
    """A slip of the finger, or a name without its tag, is told with what was meant, anything else with all there is."""
    tagged = [known for known in names if known.startswith(f"{name}:")]
    close = tagged or get_close_matches(name[:_LONGEST_TYPED], names, n=1)
    return f"; did you mean {close[0]}?" if close else f": there is {', '.join(sorted(set(names))[:_TOLD])}"


class Images(_Catalog[Image, None]):
    """Root file systems."""

    noun = "image"
    missing = Reason.IMAGE_NOT_FOUND

    def __init__(self, store: Store, library: Library, source: ImageSource) -> None:
        super().__init__(store, library, source)
        self._source = source

    async def register(self, name: str, source: str, rootfs: Upload, progress: Progress) -> Image:
        """Take a tar archive or an ext4 image from who calls; `source` is what it is said to be."""
        progress.stage("register-image", f"taking {source}")
        return await self._add(name, source, progress, partial(self._source.receive, rootfs))

    def allocated_bytes(self, image: Image) -> int:
        """What its file really takes; 0 when it is gone."""
        try:
            return (self._library.path(image.id) / "rootfs.ext4").stat().st_blocks * 512
        except FileNotFoundError:  # it is being deleted
            return 0

    async def _find(self, reference: str) -> Image:
        return await self._store.image(reference)

    async def _all(self) -> list[Image]:
        return await self._store.images()

    async def _record(self, item_id: str, name: str, facts: None, size: int, source: str) -> Image:
        return await self._store.add_image(Image(item_id, (name,), size, datetime.now(UTC), source), name)

    async def _forget(self, item_id: str) -> None:
        await self._store.delete_image(item_id)


class Kernels(_Catalog[Kernel, KernelFacts]):
    """Guest kernels."""

    noun = "kernel"
    missing = Reason.KERNEL_NOT_FOUND

    def __init__(self, store: Store, library: Library, source: KernelSource) -> None:
        super().__init__(store, library, source)
        self._source = source

    def needed_modules(self) -> tuple[str, ...]:
        """Names of what a guest loads before it has a root file system."""
        return self._source.needed_modules()

    async def register(self, name: str, source: str, kernel: Upload, progress: Progress) -> Kernel:
        """Take a kernel, perhaps with its modules, from who calls; `source` is what it is said to be."""
        progress.stage("import-kernel", f"taking {source}")
        return await self._add(name, source, progress, partial(self._source.receive, kernel))

    async def _find(self, reference: str) -> Kernel:
        return await self._store.kernel(reference)

    async def _all(self) -> list[Kernel]:
        return await self._store.kernels()

    async def _record(self, item_id: str, name: str, facts: KernelFacts, size: int, source: str) -> Kernel:
        kernel = Kernel(item_id, (name,), facts.release, size, facts.modules, datetime.now(UTC), source)
        return await self._store.add_kernel(kernel, name)

    async def _forget(self, item_id: str) -> None:
        await self._store.delete_kernel(item_id)
