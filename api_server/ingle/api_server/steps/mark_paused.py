"""Say in the store that the guest stands still."""

from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Sleep, VmTarget


class MarkPaused:
    """Before it does: what the store says of a guest, a server that starts makes so. Then one that was killed in the
    middle of this has left a guest that is paused, and can be resumed."""

    name = "mark-paused"
    text = "claiming the VM"

    def __init__(self, vms: VmStore) -> None:
        self._vms = vms

    async def run(self, target: Sleep) -> None:
        if not target.paused_before:
            target.vm = await self._vms.move(target.vm_id, VmState.PAUSED, op_id=target.op_id)

    async def undo(self, target: VmTarget) -> None:
        if not isinstance(target, Sleep) or target.paused_before:
            return
        if (await self._vms.get(target.vm_id)).state is VmState.PAUSED:
            await self._vms.move(target.vm_id, VmState.RUNNING, op_id=target.op_id)
