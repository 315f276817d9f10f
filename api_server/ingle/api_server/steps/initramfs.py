"""Write the initramfs: agent, modules and this boot's configuration. The runtime directory's undo removes it."""

from ingle.api_server.ports.disk import BootMedia
from ingle.api_server.ports.engine import Engine
from ingle.api_server.steps.target import Start


class WriteInitramfs:
    """It holds the agent's token, so it is private, and gone once the VMM has read it."""

    name = "initramfs"
    text = "writing the initramfs"

    def __init__(self, media: BootMedia, engine: Engine) -> None:
        self._media = media
        self._engine = engine

    async def run(self, target: Start) -> None:
        config = self._engine.boot_config(target.vm, target.token, target.link)
        await self._media.write(target.kernel, config, target.paths.initramfs)
