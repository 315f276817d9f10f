"""What a guest has in the place of a network that VMs share while it is nobody's VM."""

from ingle.api_server.model.network import USER_NETWORK
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.steps.target import PristineStart, VmTarget


class ConnectNowhere:
    """Its network card is like that of the VMs that begin with it, who have a tap behind it. What it sends meanwhile
    reaches nobody."""

    name = "tap"
    text = "making what looks like a network"

    def __init__(self, network: HostNetwork) -> None:
        self._network = network

    async def run(self, target: PristineStart) -> None:
        if target.vm.settings.network != USER_NETWORK:
            target.link = await self._network.connect_nowhere(target.vm_id)

    async def undo(self, target: VmTarget) -> None:
        await self._network.disconnect_nowhere(target.vm_id)


class DisconnectNowhere:
    """No VMM needs it any more. The other one's undo does it otherwise."""

    name = "no-tap"
    text = "taking it away"

    def __init__(self, network: HostNetwork) -> None:
        self._network = network

    async def run(self, target: PristineStart) -> None:
        await self._network.disconnect_nowhere(target.vm_id)
