"""Let the guest run."""

from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.target import Cold, Start


class Boot(Cold):
    """The VMM has read the initramfs by now: its secrets leave the disk."""

    name = "boot"
    text = "booting the kernel"

    def __init__(self, files: VmFiles) -> None:
        self._files = files

    async def run(self, target: Start) -> None:
        self._files.remove_initramfs(target.paths)
        await target.live_vmm.boot()
