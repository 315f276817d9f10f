"""Put what came from elsewhere where a snapshot's files are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.snapshot_archives import SnapshotArchives
from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.ports.sources import Library
from ingle.api_server.steps.snapshot_target import Making


@dataclass(slots=True)
class Importing(Making):
    """A snapshot of another host's making, whose archive is in `scratch`."""

    scratch: Path = Path()


class UnpackSnapshot:
    """The undo of who has made the directory takes it away again."""

    name = "unpack-snapshot"
    text = "unpacking, and checking hashes"

    def __init__(
        self, archives: SnapshotArchives, files: SnapshotFiles, backends: Mapping[str, DiskBackend], images: Library
    ) -> None:
        self._archives = archives
        self._files = files
        self._backends = backends
        self._images = images

    async def run(self, target: Importing) -> None:
        memory = self._files.memory(target.directory) if target.snapshot.memory else None
        await self._archives.unpack(target.snapshot, memory, target.scratch)
        settings = target.snapshot.settings
        image = self._images.path(settings.image_id) / "rootfs.ext4"
        raw = self._archives.raw_disk(target.scratch)
        await self._backends[settings.disk_backend].from_raw(raw, image, target.directory)
