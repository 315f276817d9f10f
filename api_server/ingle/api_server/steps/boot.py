"""Let the guest run."""

from ingle.api_server.steps.target import Start


class Boot:
    """The VMM has read the initramfs by now: its secrets leave the disk."""

    name = "boot"
    text = "booting the kernel"

    async def run(self, target: Start) -> None:
        target.paths.initramfs.unlink()
        await target.live_vmm.boot()
