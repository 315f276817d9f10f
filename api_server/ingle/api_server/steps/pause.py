"""Stop the guest's processors."""

from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Sleep, VmTarget


class Pause:
    """Of a VMM that an earlier server has started nobody need undo it: it is made to do what the store says."""

    name = "pause"
    text = "stopping the guest's processors"

    def __init__(self, vms: VmStore) -> None:
        self._vms = vms

    async def run(self, target: Sleep) -> None:
        await target.vmm.pause()

    async def undo(self, target: VmTarget) -> None:
        if isinstance(target, Sleep) and (await self._vms.get(target.vm_id)).state is VmState.PAUSED:
            await target.vmm.resume()
