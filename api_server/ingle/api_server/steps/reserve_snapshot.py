"""Reserve a snapshot's name and room, and record it."""

from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.steps.snapshot_target import Making, SnapshotTarget


class ReserveSnapshot:
    """From here on image and kernel can't be deleted."""

    name = "reserve-snapshot"
    text = "reserving the snapshot's name and room"

    def __init__(self, snapshots: SnapshotStore) -> None:
        self._snapshots = snapshots

    async def run(self, target: Making) -> None:
        await self._snapshots.insert(target.snapshot)

    async def undo(self, target: SnapshotTarget) -> None:
        await self._snapshots.delete(target.snapshot_id, target.op_id)
