"""Make a snapshot's memory such that all that goes on from it has the same pages."""

from collections.abc import Mapping

from ingle.api_server.ports.engine import Engine, engine_of
from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.steps.snapshot_target import Making


class ShareMemory:
    """Here and now, since a snapshot never changes. Its guest goes on meanwhile."""

    name = "share-memory"
    text = "making the memory one for all forks"

    def __init__(self, engines: Mapping[str, Engine], snapshot_files: SnapshotFiles) -> None:
        self._engines = engines
        self._snapshot_files = snapshot_files

    def needed(self, target: Making) -> bool:
        """Whether there is one that can be."""
        return target.snapshot.memory

    async def run(self, target: Making) -> None:
        memory = self._snapshot_files.memory(target.directory)
        await engine_of(target.vm, self._engines).share(target.vm, memory)
