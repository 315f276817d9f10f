"""Make the root disk larger."""

from collections.abc import Mapping

from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.steps.target import Change


class GrowDisk:
    """What follows can't fail: a disk only grows. A guest makes use of it when it boots."""

    name = "grow-disk"
    text = "growing the disk"

    def __init__(self, backends: Mapping[str, DiskBackend]) -> None:
        self._backends = backends

    async def run(self, target: Change) -> None:
        settings = target.after.settings
        await self._backends[settings.disk_backend].grow(target.paths.state, settings.disk_bytes)
