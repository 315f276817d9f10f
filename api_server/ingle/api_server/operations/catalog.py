"""Images and kernels: bring them here, hand them out, delete them.

Both are content-addressed: what is published is whole, and a name is only a pointer. One lock a name keeps two pulls
of the same thing from doing the work twice; one lock a library keeps a deletion from taking what is just published.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from ingle.api_server.model.errors import BadFile, NotFound, Reason
from ingle.api_server.model.spec import check_catalog_name
from ingle.api_server.model.vm import Image, Kernel
from ingle.api_server.operations.runner import Progress
from ingle.api_server.pipeline import completed, uninterrupted
from ingle.api_server.ports.sources import CatalogEntry, ImageSource, KernelFacts, KernelSource, Library, Report
from ingle.api_server.ports.store import Store


class Images:
    """Root file systems."""

    def __init__(self, store: Store, library: Library, source: ImageSource) -> None:
        self._store = store
        self._library = library
        self._source = source
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._library_lock = asyncio.Lock()

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """What can be pulled."""
        return self._source.catalog()

    def check_pullable(self, name: str) -> None:
        """Raise NotFound unless the catalog has `name`."""
        _check_known(name, self._source.catalog(), Reason.IMAGE_NOT_FOUND, "image")

    async def present(self, reference: str) -> Image | None:
        """The image, or None when it is not here but can be pulled. Raises NotFound when it can't."""
        try:
            return await self._store.image(reference)
        except NotFound as error:
            if error.reason is not Reason.IMAGE_NOT_FOUND:
                raise
            self.check_pullable(reference)
            return None

    async def pull(self, name: str, progress: Progress, *, refresh: bool = False) -> Image:
        """Bring the catalog's `name` here, unless it is and `refresh` is not asked."""
        async with self._locks[name]:
            if not refresh and (image := await self.present(name)) is not None:
                return image
            progress.stage("pull-image", f"making image {name}")
            return await self._add(name, name, progress, lambda into, report: self._source.pull(name, into, report))

    async def register(self, name: str, rootfs: Path, progress: Progress) -> Image:
        """Take a tar archive, an ext4 image or a directory of this host."""
        async with self._locks[name]:
            progress.stage("register-image", f"converting {rootfs}")
            return await self._add(
                name, str(rootfs), progress, lambda into, report: self._source.convert(rootfs, into, report)
            )

    def allocated_bytes(self, image: Image) -> int:
        """What its file really takes; 0 when it is gone."""
        try:
            return (self._library.path(image.id) / "rootfs.ext4").stat().st_blocks * 512
        except FileNotFoundError:  # it is being deleted
            return 0

    async def delete(self, image: Image) -> None:
        """Delete it and its names. Raises Conflict(IN_USE)."""
        await uninterrupted(self._delete(image))

    def check_register(self, name: str, rootfs: Path) -> None:
        """Raise InvalidArgument or BadFile when register could not even begin."""
        check_catalog_name(name, "image")
        _check_path(rootfs, Reason.IMAGE_INVALID, "root file system")

    async def _add(
        self, name: str, source: str, progress: Progress, make: Callable[[Path, Report], Awaitable[None]]
    ) -> Image:
        async with self._library.workspace(progress.operation.id) as workspace:
            await make(workspace, progress.report)
            size = (workspace / "rootfs.ext4").stat().st_size
            progress.stage("publish-image", "checking and publishing the image")
            return await completed(self._publish(workspace, name, size, source))

    async def _publish(self, workspace: Path, name: str, size: int, source: str) -> Image:
        async with self._library_lock:
            image_id = await self._library.publish(workspace)
            return await self._store.add_image(Image(image_id, (name,), size, datetime.now(UTC), source), name)

    async def _delete(self, image: Image) -> None:
        async with self._library_lock:
            await self._store.delete_image(image.id)
            await self._library.remove(image.id)


class Kernels:
    """Guest kernels."""

    def __init__(self, store: Store, library: Library, source: KernelSource) -> None:
        self._store = store
        self._library = library
        self._source = source
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._library_lock = asyncio.Lock()

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """What can be pulled."""
        return self._source.catalog()

    def check_pullable(self, name: str) -> None:
        """Raise NotFound unless the catalog has `name`."""
        _check_known(name, self._source.catalog(), Reason.KERNEL_NOT_FOUND, "kernel")

    async def present(self, reference: str) -> Kernel | None:
        """The kernel, or None when it is not here but can be pulled. Raises NotFound when it can't."""
        try:
            return await self._store.kernel(reference)
        except NotFound as error:
            if error.reason is not Reason.KERNEL_NOT_FOUND:
                raise
            self.check_pullable(reference)
            return None

    async def pull(self, name: str, progress: Progress, *, refresh: bool = False) -> Kernel:
        """Bring the catalog's `name` here, unless it is and `refresh` is not asked."""
        async with self._locks[name]:
            if not refresh and (kernel := await self.present(name)) is not None:
                return kernel
            progress.stage("pull-kernel", f"getting kernel {name}")
            return await self._add(name, name, progress, lambda into, report: self._source.pull(name, into, report))

    async def import_file(self, name: str, kernel: Path, modules: Path | None, progress: Progress) -> Kernel:
        """Take a vmlinux or bzImage of this host, and its modules."""
        async with self._locks[name]:
            progress.stage("import-kernel", f"unpacking {kernel}")
            return await self._add(
                name, str(kernel), progress, lambda into, report: self._source.convert(kernel, modules, into, report)
            )

    async def delete(self, kernel: Kernel) -> None:
        """Delete it and its names. Raises Conflict(IN_USE)."""
        await uninterrupted(self._delete(kernel))

    def check_import(self, name: str, kernel: Path, modules: Path | None) -> None:
        """Raise InvalidArgument or BadFile when import could not even begin."""
        check_catalog_name(name, "kernel")
        _check_path(kernel, Reason.KERNEL_INVALID, "kernel")
        if modules is not None:
            _check_path(modules, Reason.KERNEL_INVALID, "modules directory")

    async def _add(
        self, name: str, source: str, progress: Progress, make: Callable[[Path, Report], Awaitable[KernelFacts]]
    ) -> Kernel:
        async with self._library.workspace(progress.operation.id) as workspace:
            facts = await make(workspace, progress.report)
            size = sum(file.stat().st_size for file in workspace.rglob("*") if file.is_file())
            progress.stage("publish-kernel", "checking and publishing the kernel")
            return await completed(self._publish(workspace, name, facts, size, source))

    async def _publish(self, workspace: Path, name: str, facts: KernelFacts, size: int, source: str) -> Kernel:
        async with self._library_lock:
            kernel_id = await self._library.publish(workspace)
            kernel = Kernel(kernel_id, (name,), facts.release, size, facts.modules, datetime.now(UTC), source)
            return await self._store.add_kernel(kernel, name)

    async def _delete(self, kernel: Kernel) -> None:
        async with self._library_lock:
            await self._store.delete_kernel(kernel.id)
            await self._library.remove(kernel.id)


def _check_known(name: str, catalog: tuple[CatalogEntry, ...], reason: Reason, what: str) -> None:
    if all(entry.name != name for entry in catalog):
        known = ", ".join(entry.name for entry in catalog)
        raise NotFound(reason, f"no {what} {name!r}, neither here nor in the catalog ({known})", f"ingle {what} list")


def _check_path(path: Path, reason: Reason, what: str) -> None:
    if not path.is_absolute():
        raise BadFile(reason, f"{what} {path}: the path must be absolute")
    try:
        os.stat(path)
    except (OSError, ValueError) as error:  # a ValueError: the path has a NUL byte in it
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise BadFile(reason, f"{what} {str(path)[:1000]!r}: {why}") from None
