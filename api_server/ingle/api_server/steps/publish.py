"""Let the VMM have the VM's published ports, at which somebody may be waiting."""

from ingle.api_server.ports.activation import ActivationSockets
from ingle.api_server.steps.target import Start, VmTarget


class Publish:
    """Of a VM that wakes. When it fails after all, who has listened before does so again once the VM hibernates."""

    name = "publish"
    text = "handing its ports over"

    def __init__(self, sockets: ActivationSockets) -> None:
        self._sockets = sockets

    async def run(self, target: Start) -> None:
        if target.vm.slot is None:
            await self._sockets.hand_over(target.vm, target.live_vmm.publish)

    async def undo(self, target: VmTarget) -> None:
        """A port goes with the VMM."""
