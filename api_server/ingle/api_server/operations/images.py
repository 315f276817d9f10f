"""Images: what is true of them beside what is of all that is pulled or sent."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from ingle.api_server.model.caller import ROOT, Caller
from ingle.api_server.model.errors import Conflict, InvalidArgument, NotFound, Reason
from ingle.api_server.model.ids import new_vm_id
from ingle.api_server.model.image_config import ImageConfig
from ingle.api_server.model.image_reference import (
    DOCKER_HUB,
    LATEST,
    ImageReference,
    Login,
    is_explicit,
    names_registry,
)
from ingle.api_server.model.spec import check_catalog_name
from ingle.api_server.model.vm import Image
from ingle.api_server.operations.catalog import Catalog, likely
from ingle.api_server.operations.runner import Progress
from ingle.api_server.pipeline import uninterrupted
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.layer_cache import LayerCache, Pruned
from ingle.api_server.ports.sources import Exported, ImageSource, Library, Upload
from ingle.api_server.ports.store.items import ItemStore

log = logging.getLogger(__name__)

_LONGEST_CALLED = 255

_AT_ONCE = 8
"""Pulls from registries for one user: each is a process of up to 100 MB, for as long as its registry likes."""


class Images(Catalog[Image, ImageConfig | None]):
    """Root file systems: of the catalog, of registries, and those that callers send."""

    noun = "image"
    missing = Reason.IMAGE_NOT_FOUND

    def __init__(
        self,
        items: ItemStore[Image],
        library: Library,
        source: ImageSource,
        clock: Clock,
        default: Callable[[], str],
        layers: LayerCache,
        most_layers: Callable[[], int],
    ) -> None:
        """`most_layers`: bytes that `layers` may take when nobody pulls."""
        super().__init__(items, library, source, clock, default)
        self._source = source
        self._layers = layers
        self._most_layers = most_layers
        self._turns: defaultdict[int, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, _AT_ONCE))
        """By owner, a uid of this host."""

    async def present(self, reference: str) -> Image | None:
        """The one here with that id or name, whoever gave it; None for a name of the catalog, then for what a registry
        has. Raises NotFound for what is nearly a name that ingle's own have, or those that were sent."""
        try:
            return await super().present(reference)
        except NotFound as error:
            if error.reason is not self.missing:
                raise
            return await self._of_registry(reference, error)

    async def _of_registry(self, text: str, unknown: NotFound) -> Image | None:
        try:
            reference = self._reference(text)
        except InvalidArgument:
            raise unknown from None
        if reference.name == f"{text}:{LATEST}":  # as docker takes a name without a tag
            with suppress(NotFound):
                return await self.get(reference.name)
        here = await self.all()
        if meant := next((image.id for image in here if image.id.startswith(text)), ""):
            raise NotFound(
                self.missing,
                f"no image {text!r}: the id of one begins so, and is to be given whole",
                f"--image {meant}; --image {DOCKER_HUB}/library/{reference.name}",
            ) from None
        sent = [name for image in here if image.config is None for name in image.names]
        if not is_explicit(text) and (close := likely(text, [*self._known(), *sent])):
            raise NotFound(
                self.missing,
                f"no image {text!r}, neither here nor in the catalog; did you mean {close}? To have it from a "
                f"registry, say which",
                f"--image {close}; --image {DOCKER_HUB}/library/{reference.name}",
            ) from None
        return await self._fetched(reference)

    def check_pullable(self, name: str) -> None:
        """Raise NotFound for what is nearly a name of the catalog; InvalidArgument for no reference either."""
        if name in self._known():
            return
        reference = self._reference(name)
        if not is_explicit(name) and (close := likely(name, self._known())):
            raise NotFound(
                self.missing,
                f"the catalog has no image {name!r}; did you mean {close}? To have it from a registry, say which",
                f"ingle image pull {close}; ingle image pull {DOCKER_HUB}/library/{reference.name}",
            )

    async def fetch(
        self, name: str, logins: Mapping[str, Login], progress: Progress, caller: Caller, *, refresh: bool = False
    ) -> Image:
        """Bring an image of the catalog or of a registry here, unless it is and `refresh` is not asked."""
        if name in self._known():
            return await self.pull(name, progress, caller, refresh=refresh)
        reference = self._reference(name)
        if not refresh and (found := await self._fetched(reference)) is not None:
            return found
        if self._turns[caller.uid].locked():
            progress.stage("wait", f"waiting for {_AT_ONCE} other pulls of yours")
        # In this order: nobody waits for a name of who waits for others' pulls.
        async with self._turns[caller.uid], self._lock(reference.name):
            if not refresh and (found := await self._fetched(reference)) is not None:
                return found
            await self._items.check_may_name(reference.name, caller)
            progress.stage("pull-image", f"getting image {reference.whole}")
            fetch = partial(self._source.fetch, reference.whole, logins)
            async with self._bounded_layers():
                return await self._add(reference.name, reference.whole, progress, caller, fetch)

    async def _fetched(self, reference: ImageReference) -> Image | None:
        """What that registry had, where it is here."""
        with suppress(NotFound):
            found = await self.get(reference.name)
            # Anybody may have given the name to something else, and said anything of where that came from.
            if found.config is not None and found.source == reference.whole:
                return found
        return None

    def of_a_stranger(self, image: Image, text: str, caller: Caller) -> str:
        """What a caller should know who has asked for `text` and gets an image that another user has made, and called
        so; empty: nothing. Root's are as good as one's own."""
        if {caller.uid, ROOT} & {*image.owners} or text in self._known() or text == image.id:
            return ""
        with suppress(InvalidArgument):
            if image.config is not None and image.source == self._reference(text).whole:
                return ""  # as its registry has it
        users = " and ".join(map(str, image.owners))
        return f"image {text!r} was made by user {users}, who calls it so; docker://{text} is what a registry has"

    def _known(self) -> list[str]:
        return [entry.name for entry in self.catalog()]

    def _reference(self, name: str) -> ImageReference:
        return ImageReference.parse(name, self._known())

    async def register(self, name: str, source: str, rootfs: Upload, progress: Progress, caller: Caller) -> Image:
        """Take a tar archive or an ext4 image from who calls; `source` is what it is said to be."""
        progress.stage("register-image", f"taking {source}")
        return await self._add(name, source, progress, caller, partial(self._source.receive, rootfs))

    async def prune_layers(self, caller: Caller, *, dry_run: bool) -> Pruned:
        """Delete all layers that no pull uses. Raises Conflict(NOT_ADMIN): they are everybody's."""
        caller.check_may_empty("layers of images")
        return await self._layers.prune(dry_run=dry_run)

    @asynccontextmanager
    async def _bounded_layers(self) -> AsyncIterator[None]:
        """Around what may bring layers, whether or not it goes well."""
        try:
            yield
        finally:
            try:
                await uninterrupted(self._layers.prune(self._most_layers()))
            except OSError as error:  # of no matter to what was brought
                log.warning("layers of images may take more than they should: %s", error)

    async def tag(self, reference: str, name: str, caller: Caller) -> Image:
        """Give an image one more name. Raises NotFound, InvalidArgument, Conflict: NOT_OWNER, QUOTA_EXCEEDED."""
        await self.get(reference)
        check_catalog_name(name, self.noun)
        await self._check_may_send(name, caller)
        async with self._library_lock:  # so that it isn't deleted meanwhile
            image = await self.get(reference)
            return await self._items.add(image, name, caller)

    async def untag(self, image: Image, name: str, caller: Caller) -> bool:
        """Take one of its names away, if it has others. Answers whether it had. Raises Conflict(NOT_OWNER)."""
        return await self._items.untag(image.id, name, caller)

    async def _check_may_send(self, name: str, caller: Caller) -> None:
        """The same, also of what a registry has: all get these who ask that registry for them."""
        await super()._check_may_send(name, caller)
        if not caller.admin and names_registry(name):
            raise Conflict(
                Reason.NOT_OWNER,
                f"image name {name!r} is a registry's: only root and members of the group ingle-admin give it to "
                f"something else",
                f"ingle image pull {name}, or use another name, one without a host: --name NAME",
            )

    async def check_archive(self, name: str, called: str, source: str, caller: Caller) -> None:
        """The same as `check_sent` for an archive of images, of which that which is `called` so is to be taken."""
        if len(called) > _LONGEST_CALLED or not called.isprintable():
            raise InvalidArgument(
                f"archived_as: at most {_LONGEST_CALLED} printable characters are allowed", field="archived_as"
            )
        if name:
            await self.check_sent(name, source, caller)
        self._check_source(source)

    async def load(
        self, name: str, called: str, source: str, archive: Upload, progress: Progress, caller: Caller
    ) -> Image:
        """Take an archive of images from who calls, and of it the one that it calls so. An empty name is what the
        archive says."""
        progress.stage("register-image", f"taking {source}")
        async with self._library.workspace(progress.operation.id) as workspace:
            async with self._bounded_layers():
                loaded = await self._source.load(archive, called, workspace, progress.report)
            known = name or self._named(loaded.name)
            # No reference has a space in it: nobody takes this for a registry's.
            told = f"archive {source}"
            await self._check_may_send(known, caller)
            image = await self._keep(workspace, known, told, loaded.config, progress, caller)
            progress.found(image.id)
            return image

    async def promote(
        self,
        name: str,
        source: str,
        write: Callable[[Path], Awaitable[None]],
        config: ImageConfig | None,
        progress: Progress,
        caller: Caller,
    ) -> Image:
        """Make an image of a disk that `write` makes a file of, to be run as `config` says."""
        progress.stage("save-image", f"taking {source}")
        async with self._library.workspace(progress.operation.id) as workspace:
            await self._source.promote(write, workspace, progress.report)
            return await self._keep(workspace, name, source, config, progress, caller)

    @asynccontextmanager
    async def exported(self, reference: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """An image as an archive that docker and others take, in pieces. Raises BadFile(IMAGE_INVALID), HostProblem."""
        image = await self.get(reference)
        name = reference if reference in image.names else next(iter(image.names), "")
        whole = ""
        with suppress(InvalidArgument):
            whole = name and self._reference(name).whole
        async with self._library.workspace(new_vm_id()) as workspace:
            archive = workspace / "archive"
            rootfs = self._library.path(image.id) / "rootfs.ext4"
            await self._source.export(rootfs, Exported(whole, image.created_at, image.config), archive)
            yield self._library.pieces(archive)

    def _named(self, said: str) -> str:
        """What an archive calls an image, as a pull of that would."""
        # Most tools' layouts have a tag alone, of what they don't say.
        whole = said if ":" in said or "/" in said else ""
        with suppress(InvalidArgument):
            if whole:
                return self._reference(whole).name
        raise InvalidArgument(
            "the archive doesn't say what the image is called" + (f", but for {said[:100]!r}" if said else ""),
            "ingle image pull --name NAME …",
            field="name",
        )

    def allocated_bytes(self, image: Image) -> int:
        """What its file really takes; 0 when it is gone."""
        return self._library.allocated_bytes(image.id)

    def _item(self, item_id: str, name: str, facts: ImageConfig | None, size: int, source: str) -> Image:
        return Image(item_id, (name,), size, self._clock.now(), source, config=facts)
