"""Make a snapshot one that needs no other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingle.api_server.model.errors import NotFound
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.steps.snapshot_target import SnapshotTarget


@dataclass(slots=True)
class Flattening(SnapshotTarget):
    """One that is flattened, and all that it needs; nobody changes any of them meanwhile."""

    chain: Sequence[Snapshot]
    flat: Snapshot


class FlattenSnapshot:
    """All that it will be lies beside it before the store says that it is so; then that takes the place of what it was.
    Undo does of this what is left to do: which of the two that is, the store knows."""

    name = "flatten-snapshot"
    text = "making a whole of it"

    def __init__(
        self, files: SnapshotFiles, snapshots: SnapshotStore, backends: Mapping[str, DiskBackend], images: Library
    ) -> None:
        self._files = files
        self._snapshots = snapshots
        self._backends = backends
        self._images = images

    async def run(self, target: Flattening) -> None:
        settings = target.flat.settings
        backend = self._backends[settings.disk_backend]
        directory = await self._files.begin_flat(target.flat)
        await backend.difference(self._disk(backend, target), None, self._image(settings.image_id), directory)
        sealed = await self._files.publish_flat(target.chain, target.flat)
        known = replace(target.flat, size_bytes=sealed.size_bytes, digest=sealed.digest)
        target.flat = await self._snapshots.flattened(known, target.op_id)
        await self._files.settle_flat(target.snapshot_id, sealed.digest)

    async def undo(self, target: SnapshotTarget) -> None:
        try:
            digest = (await self._snapshots.get(target.snapshot_id)).digest
        except NotFound:
            digest = ""
        await self._files.settle_flat(target.snapshot_id, digest)

    def _disk(self, backend: DiskBackend, target: Flattening) -> Path:
        return backend.disk_path(self._files.path(target.snapshot_id))

    def _image(self, image_id: str) -> Path:
        return self._images.path(image_id) / "rootfs.ext4"
