"""Connect the VM to its network."""

from ingle.api_server.model.network import SLOTS_PER_NETWORK
from ingle.api_server.ports.names import NameService
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Start, VmTarget


class Connect:
    """A VM in a network of its own has nothing to connect: its VMM does that."""

    name = "network"
    text = "connecting the network"

    def __init__(self, network: HostNetwork, names: NameService, vms: VmStore) -> None:
        self._network = network
        self._names = names
        self._vms = vms

    async def run(self, target: Start) -> None:
        if target.vm.slot is not None:
            target.link = await self._network.connect(target.vm)
            port = await self._names.serve(target.link.gateway)
            await self._network.lead_dns(target.vm.slot // SLOTS_PER_NETWORK, port)

    async def undo(self, target: VmTarget) -> None:
        slot = await self._vms.slot(target.vm_id)
        if slot is not None:
            await self._network.disconnect(slot, target.vm_id)
