"""Connect a VM that runs as its new settings say: what it may reach, and how much of it in a second."""

from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.steps.target import Change, VmTarget


class ChangeNetwork:
    """A server that starts connects every running VM as the store says, so only a failure needs the way back."""

    name = "change-network"
    text = "changing the network"

    def __init__(self, network: HostNetwork) -> None:
        self._network = network

    async def run(self, target: Change) -> None:
        await self._network.connect(target.after)

    async def undo(self, target: VmTarget) -> None:
        if isinstance(target, Change):
            await self._network.connect(target.before)
