"""Have whoever connects to a published port of a VM that is to stand still reach the server, which wakes it."""

from dataclasses import replace

from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.steps.target import Sleep, VmTarget


class WithholdPorts:
    """Of a VM in a shared network, before its guest stands still: the rules that lead ports there are taken away. The
    VMM of one in a network of its own has them on. A server that starts leads ports as the store says."""

    name = "withhold-ports"
    text = "taking its ports"

    def __init__(self, network: HostNetwork) -> None:
        self._network = network

    async def run(self, target: Sleep) -> None:
        if target.vm.slot is not None and target.vm.settings.ports and not target.paused_before:
            await self._network.connect(target.vm)

    async def undo(self, target: VmTarget) -> None:
        if isinstance(target, Sleep) and target.vm.slot is not None and not target.paused_before:
            await self._network.connect(replace(target.vm, asleep_since=None))
