"""Remove a snapshot and its files, or its name alone."""

from ingle.api_server.model.errors import NotFound
from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.steps.snapshot_target import SnapshotTarget


class DeleteSnapshot:
    """The row goes before the files: what is listed is whole. Once it is gone there is no way back, so undo goes on
    with it. One that something rests on loses its name alone."""

    name = "delete-snapshot"
    text = "deleting the snapshot"

    def __init__(self, snapshots: SnapshotStore, files: SnapshotFiles) -> None:
        self._snapshots = snapshots
        self._files = files

    async def run(self, target: SnapshotTarget) -> None:
        if not await self._snapshots.delete(target.snapshot_id, target.op_id):
            await self._files.remove(target.snapshot_id)

    async def undo(self, target: SnapshotTarget) -> None:
        try:
            await self._snapshots.get(target.snapshot_id)
        except NotFound:
            await self._files.remove(target.snapshot_id)
