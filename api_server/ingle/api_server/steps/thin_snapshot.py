"""Of what a snapshot has, keep what its parent has not."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.ports.sources import Library
from ingle.api_server.steps.snapshot_target import Making


class ThinSnapshot:
    """After the guest went on: what is told from the parent's is all there. Nobody has been told which parent it has,
    so where little would be saved it has none but what its disk rests on anyway.

    The undo of who has made the directory takes all of it away."""

    name = "thin-snapshot"
    text = "telling what is new in it"

    def __init__(
        self,
        files: SnapshotFiles,
        backends: Mapping[str, DiskBackend],
        images: Library,
        steady: Callable[[str], AbstractAsyncContextManager[Sequence[Snapshot]]],
    ) -> None:
        """While the context that `steady` makes for a snapshot is open, its chain stays what it is."""
        self._files = files
        self._backends = backends
        self._images = images
        self._steady = steady

    def needed(self, target: Making) -> bool:
        """Whether it is to rest on something else than its disk does, or to have its memory told from that."""
        return bool(target.against) or (target.full and bool(target.vm.snapshot_id))

    async def run(self, target: Making) -> None:
        if not target.against:
            await self._rest_on_image(target)
            return
        async with self._steady(target.against) as parent:
            await self._files.verify(parent)
            await self._thin(target, parent)

    async def _thin(self, target: Making, parent: Sequence[Snapshot]) -> None:
        backend = self._backend(target)
        whole_disk = backend.copies or not backend.stacks  # else it shares blocks, or names what it rests on
        thin = await self._files.thin(target.snapshot, parent, disk=whole_disk)
        if target.against != target.vm.snapshot_id:
            base = backend.disk_path(self._files.path(target.against))
            await backend.difference(backend.disk_path(target.directory), base, self._image(target), thin)
        if await self._files.settle_thin(target.snapshot, at_any_price=target.wished):
            target.snapshot = replace(target.snapshot, parent_id=target.against)

    async def _rest_on_image(self, target: Making) -> None:
        backend = self._backend(target)
        flat = await self._files.thin(target.snapshot, (), disk=False)
        await backend.difference(backend.disk_path(target.directory), None, self._image(target), flat)
        await self._files.settle_thin(target.snapshot, at_any_price=True)
        target.snapshot = replace(target.snapshot, parent_id="")

    def _backend(self, target: Making) -> DiskBackend:
        return self._backends[target.vm.settings.disk_backend]

    def _image(self, target: Making) -> Path:
        return self._images.path(target.vm.settings.image_id) / "rootfs.ext4"
