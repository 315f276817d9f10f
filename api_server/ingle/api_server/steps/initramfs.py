"""Write the initramfs: agent, modules and this boot's configuration. The runtime directory's undo removes it."""

from collections.abc import Mapping

from ingle.api_server.ports.disk import BootMedia
from ingle.api_server.ports.engine import Engine, engine_of
from ingle.api_server.steps.target import Start


class WriteInitramfs:
    """It holds the agent's token, so it is private, and gone once the VMM has read it."""

    name = "initramfs"
    text = "writing the initramfs"

    def __init__(self, media: BootMedia, engines: Mapping[str, Engine]) -> None:
        self._media = media
        self._engines = engines

    def needed(self, target: Start) -> bool:
        """A guest that goes on has booted."""
        return target.memory is None and target.warm is None

    async def run(self, target: Start) -> None:
        config = engine_of(target.vm, self._engines).boot_config(target.vm, target.token, target.link)
        await self._media.write(target.kernel, config, target.paths.initramfs)
