"""Reserve name and address, and record the VM."""

from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Start, VmTarget


class Reserve:
    """From here on the name is taken, and image and kernel can't be deleted."""

    name = "reserve"
    text = "reserving name and address"

    def __init__(self, vms: VmStore) -> None:
        self._vms = vms

    async def run(self, target: Start) -> None:
        target.vm = await self._vms.insert(target.vm, target.token, target.keeper)

    async def undo(self, target: VmTarget) -> None:
        await self._vms.delete(target.vm_id, target.op_id)
