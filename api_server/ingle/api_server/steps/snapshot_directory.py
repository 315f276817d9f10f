"""Make the directory that a snapshot's files go into."""

from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.steps.snapshot_target import Making, SnapshotTarget


class SnapshotDirectory:
    """Everything below it goes with it, also once it is whole."""

    name = "snapshot-directory"
    text = "making the snapshot's directory"

    def __init__(self, files: SnapshotFiles) -> None:
        self._files = files

    async def run(self, target: Making) -> None:
        target.new_directory = await self._files.begin(target.snapshot)

    async def undo(self, target: SnapshotTarget) -> None:
        await self._files.remove(target.snapshot_id)
