"""Images and kernels: bring them here, hand them out, delete them.

Both are content-addressed: what is published is whole, and a name is only a pointer. One lock a name keeps two pulls
of the same thing from doing the work twice; one lock a library keeps a deletion from taking what is just published.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from ingle.api_server.model.caller import Caller
from ingle.api_server.model.errors import Conflict, InvalidArgument, NotFound, Reason
from ingle.api_server.model.likeness import nearest
from ingle.api_server.model.operation import Failure, OperationKind
from ingle.api_server.model.spec import check_catalog_name
from ingle.api_server.model.vm import Image, Kernel
from ingle.api_server.operations.runner import Progress
from ingle.api_server.pipeline import completed, uninterrupted
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.sources import (
    CatalogEntry,
    KernelFacts,
    KernelSource,
    Library,
    Report,
    Sealed,
    Upload,
)
from ingle.api_server.ports.store.items import ItemStore

Item = TypeVar("Item", bound=Image | Kernel)
Facts = TypeVar("Facts")
Facts_co = TypeVar("Facts_co", covariant=True)

_LONGEST_SOURCE = 1000
_TOLD = 20

_SENT = frozenset({OperationKind.REGISTER_IMAGE, OperationKind.SAVE_IMAGE, OperationKind.IMPORT_KERNEL})
"""Operations that take what their callers send or have; all others pull what they need."""


class Source(Protocol[Facts_co]):
    """What ImageSource and KernelSource have in common; the latter finds out facts on the way."""

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """Names that `pull` knows."""

    async def pull(self, name: str, into: Path, report: Report) -> Facts_co:
        """Make the catalog's `name`."""


class Catalog(ABC, Generic[Item, Facts]):
    """One kind of thing."""

    noun: ClassVar[str]
    missing: ClassVar[Reason]

    def __init__(
        self,
        items: ItemStore[Item],
        library: Library,
        source: Source[Facts],
        clock: Clock,
        default: Callable[[], str],
    ) -> None:
        """`default`: what they get who say nothing."""
        self._default = default
        self._items = items
        self._clock = clock
        self._library = library
        self._catalog = source
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._library_lock = asyncio.Lock()
        self.deleted: Callable[[str], Awaitable[None]] | None = None
        """Called with the id of what was deleted: what was made of it goes as well."""

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """What can be pulled."""
        return self._catalog.catalog()

    async def check_sent(self, name: str, source: str, caller: Caller) -> None:
        """Raise InvalidArgument or Conflict(NOT_OWNER) when what is sent could not be added."""
        check_catalog_name(name, self.noun)
        self._check_source(source)
        await self._check_may_send(name, caller)

    def _check_source(self, source: str) -> None:
        if len(source) > _LONGEST_SOURCE or not source.isprintable():
            raise InvalidArgument(f"source: at most {_LONGEST_SOURCE} printable characters are allowed", field="source")

    async def _check_may_send(self, name: str, caller: Caller) -> None:
        """Raise Conflict(NOT_OWNER) when the caller may not give that name to what only the caller knows."""
        await self._items.check_may_name(name, caller)
        if caller.admin:
            return
        # All get these who ask for that name, or say nothing.
        if name in [entry.name for entry in self.catalog()]:
            raise Conflict(
                Reason.NOT_OWNER,
                f"{self.noun} name {name!r} is of the catalog: only root and members of the group ingle-admin give it "
                f"to something else",
                f"ingle {self.noun} pull {name}, or use another name",
            )
        if name == self._default() and name not in [taken for item in await self.all() for taken in item.names]:
            raise Conflict(
                Reason.NOT_OWNER,
                f"{self.noun} name {name!r} is the default of all users: only root and members of the group "
                f"ingle-admin give it to the first {self.noun}",
                "use another name, or ask one of them",
            )

    def check_pullable(self, name: str) -> None:
        """Raise NotFound unless the catalog has `name`."""
        names = [entry.name for entry in self.catalog()]
        if name not in names:
            problem = f"the catalog has no {self.noun} {name!r}"
            raise NotFound(self.missing, f"{problem}{_meant(name, names)}", f"ingle {self.noun} catalog")

    async def get(self, reference: str) -> Item:
        """The one here with that id or name. Raises NotFound."""
        return await self._items.get(reference)

    async def find(self, reference: str) -> Item:
        """The same, or the one whose id begins so: for who only looks."""
        return await self._items.find(reference)

    async def all(self) -> list[Item]:
        """All that are here, oldest first."""
        return await self._items.all()

    async def present(self, reference: str) -> Item | None:
        """What `reference` stands for, or None when it is not here but can be pulled. Raises NotFound when it can't."""
        try:
            return await self.get(reference)
        except NotFound as error:
            if error.reason is not self.missing:
                raise
        pullable: list[str] = [entry.name for entry in self.catalog()]
        if reference in pullable:
            return None
        names = [*pullable, *(name for item in await self.all() for name in item.names)]
        problem = f"no {self.noun} {reference!r}, neither here nor in the catalog"
        remedy = f"ingle {self.noun} list; ingle {self.noun} catalog"
        raise NotFound(self.missing, f"{problem}{_meant(reference, names)}", remedy)

    async def pull(self, name: str, progress: Progress, caller: Caller, *, refresh: bool = False) -> Item:
        """Bring the catalog's `name` here, unless it is and `refresh` is not asked. Raises Conflict(NOT_OWNER)."""
        async with self._lock(name):
            if not refresh and (item := await self.present(name)) is not None:
                return item
            await self._items.check_may_name(name, caller)
            progress.stage(f"pull-{self.noun}", f"getting {self.noun} {name}")
            return await self._add(name, name, progress, caller, partial(self._catalog.pull, name))

    async def delete(self, item: Item, caller: Caller, op_id: str = "") -> bool:
        """Delete it and its names; of one that others have too, what is the caller's. Answers whether it is gone.
        Raises Conflict: NOT_OWNER, IN_USE."""
        return await uninterrupted(self._delete(item, caller, op_id))

    async def unused(self, caller: Caller, *, named: bool = False) -> list[Item]:
        """Of what the caller alone has, those that nothing uses and no name points to: a name was given to another,
        and what it stood for stayed. Those with names as well, if asked."""
        used = await self._items.used()
        return [
            item
            for item in await self.all()
            if (named or not item.names) and item.id not in used and all(map(caller.knows, item.owners))
        ]

    async def prune(self, caller: Caller, op_id: str = "", *, named: bool = False) -> list[Item]:
        """Delete the unused; answers them."""
        return await uninterrupted(self._prune(caller, op_id, named=named))

    def _lock(self, name: str) -> asyncio.Lock:
        """The name's lock: one as long as anybody holds it or waits for it."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def _add(
        self,
        name: str,
        source: str,
        progress: Progress,
        caller: Caller,
        make: Callable[[Path, Report], Awaitable[Facts]],
    ) -> Item:
        async with self._library.workspace(progress.operation.id) as workspace:
            facts = await make(workspace, progress.report)
            return await self._keep(workspace, name, source, facts, progress, caller)

    async def _keep(
        self, workspace: Path, name: str, source: str, facts: Facts, progress: Progress, caller: Caller
    ) -> Item:
        """Publish what was made in a workspace."""
        progress.stage(f"publish-{self.noun}", f"checking and publishing the {self.noun}")
        sealed = await self._library.seal(workspace)
        try:
            return await completed(self._publish(workspace, sealed, name, facts, source, progress, caller))
        except asyncio.CancelledError:
            await uninterrupted(self._tell_what_stays(name, progress))
            raise

    async def _tell_what_stays(self, name: str, progress: Progress) -> None:
        """Half a publication would be no good: a cancellation that comes in its middle comes too late for it."""
        with suppress(NotFound):
            item = await self.get(name)
            progress.if_cancelled = Failure(
                Reason.OPERATION_CANCELLED,
                f"cancelled; {self.noun} {name!r} had been got by then and stays, all else was undone",
                f"ingle {self.noun} delete {item.id}",
            )

    async def _publish(
        self,
        workspace: Path,
        sealed: Sealed,
        name: str,
        facts: Facts,
        source: str,
        progress: Progress,
        caller: Caller,
    ) -> Item:
        async with self._library_lock:
            await self._library.publish(workspace, sealed.id)
            item = replace(self._item(sealed.id, name, facts, sealed.size_bytes, source), owner=caller.uid)
            pulled = progress.operation.kind not in _SENT
            return await self._items.add(item, name, caller, progress.operation.id, pulled=pulled)

    async def _delete(self, item: Item, caller: Caller, op_id: str) -> bool:
        async with self._library_lock:
            gone = await self._items.delete(item.id, caller, op_id)
            if gone:
                await self._remove(item.id)
            return gone

    async def _remove(self, item_id: str) -> None:
        await self._library.remove(item_id)
        if self.deleted is not None:
            await self.deleted(item_id)

    async def _prune(self, caller: Caller, op_id: str, *, named: bool) -> list[Item]:
        pruned = []
        async with self._library_lock:  # so nothing is given a name meanwhile
            for item in await self.unused(caller, named=named):
                try:
                    await self._items.delete(item.id, caller, op_id)
                except Conflict:  # a VM has come to use it
                    continue
                await self._remove(item.id)
                pruned.append(item)
        return pruned

    @abstractmethod
    def _item(self, item_id: str, name: str, facts: Facts, size: int, source: str) -> Item:
        """What is recorded of one that is made."""


def likely(name: str, names: Sequence[str]) -> str | None:
    """What was meant by a slip of the finger, or a name without its tag."""
    tagged = [known for known in names if known.startswith(f"{name}:")]
    return tagged[0] if tagged else nearest(name, names)


def _meant(name: str, names: Sequence[str]) -> str:
    """Such is told with what was meant, anything else with all there is."""
    close = likely(name, names)
    return f"; did you mean {close}?" if close else f": there is {', '.join(sorted(set(names))[:_TOLD])}"


class Kernels(Catalog[Kernel, KernelFacts]):
    """Guest kernels."""

    noun = "kernel"
    missing = Reason.KERNEL_NOT_FOUND

    def __init__(
        self,
        items: ItemStore[Kernel],
        library: Library,
        source: KernelSource,
        clock: Clock,
        default: Callable[[], str],
    ) -> None:
        super().__init__(items, library, source, clock, default)
        self._source = source

    def needed_modules(self) -> tuple[str, ...]:
        """Names of what a guest loads before it has a root file system."""
        return self._source.needed_modules()

    async def register(self, name: str, source: str, kernel: Upload, progress: Progress, caller: Caller) -> Kernel:
        """Take a kernel, perhaps with its modules, from who calls; `source` is what it is said to be."""
        progress.stage("import-kernel", f"taking {source}")
        return await self._add(name, source, progress, caller, partial(self._source.receive, kernel))

    def _item(self, item_id: str, name: str, facts: KernelFacts, size: int, source: str) -> Kernel:
        return Kernel(
            item_id,
            (name,),
            facts.release,
            size,
            facts.modules,
            self._clock.now(),
            source,
            disk_modules=facts.disk_modules,
            disk_bytes=facts.disk_bytes,
        )
