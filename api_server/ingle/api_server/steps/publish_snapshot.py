"""Make a snapshot whole."""

from dataclasses import replace

from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.steps.snapshot_target import Making


class PublishSnapshot:
    """Its files first, then what is known of it. The undo of who has made directory and row takes both away again."""

    name = "publish-snapshot"
    text = "verifying and publishing the snapshot"

    def __init__(self, files: SnapshotFiles, snapshots: SnapshotStore) -> None:
        self._files = files
        self._snapshots = snapshots

    async def run(self, target: Making) -> None:
        sealed = await self._files.publish(target.snapshot)
        known = replace(target.snapshot, size_bytes=sealed.size_bytes, digest=sealed.digest)
        target.snapshot = await self._snapshots.complete(known, target.token, target.op_id)
