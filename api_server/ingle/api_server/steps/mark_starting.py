"""Say in the store that the VM is being started."""

from ingle.api_server.model.errors import NotFound
from ingle.api_server.model.event import StopCause
from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Start, VmTarget


class MarkStarting:
    """The state machine refuses it for a VM that can't be started."""

    name = "mark-starting"
    text = "claiming the VM"

    def __init__(self, vms: VmStore) -> None:
        self._vms = vms

    async def run(self, target: Start) -> None:
        target.vm = await self._vms.move(target.vm_id, VmState.STARTING, token=target.token, op_id=target.op_id)

    async def undo(self, target: VmTarget) -> None:
        try:
            vm = await self._vms.get(target.vm_id)
        except NotFound:
            return
        if vm.state is not VmState.STOPPED:
            await self._vms.move(target.vm_id, VmState.STOPPED, cause=StopCause.START_FAILED, op_id=target.op_id)
