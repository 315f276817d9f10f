"""Say in the store that the VM wakes."""

from ingle.api_server.model.errors import NotFound
from ingle.api_server.model.event import StopCause
from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.memories import Memories
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Start, VmTarget


class MarkWaking:
    """One that fails hibernates as it did, unless what was saved is no more."""

    name = "mark-waking"
    text = "claiming the VM"

    def __init__(self, vms: VmStore, memories: Memories) -> None:
        self._vms = vms
        self._memories = memories

    async def run(self, target: Start) -> None:
        target.vm = await self._vms.move(target.vm_id, VmState.STARTING, op_id=target.op_id)

    async def undo(self, target: VmTarget) -> None:
        try:
            vm = await self._vms.get(target.vm_id)
        except NotFound:
            return
        if vm.state not in {VmState.STARTING, VmState.PAUSED}:  # the quota forbids it, say
            return
        saved = await self._memories.find(target.paths)
        if saved is not None and saved.disk_generation == vm.disk_generation:
            await self._vms.move(target.vm_id, VmState.HIBERNATED, op_id=target.op_id)
        else:
            await self._vms.move(target.vm_id, VmState.STOPPED, cause=StopCause.START_FAILED, op_id=target.op_id)
