"""Say in the store that the VM is being started."""

from ingle.api_server.model.errors import NotFound
from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.store import Store
from ingle.api_server.steps.target import Start, VmTarget


class MarkStarting:
    """The state machine refuses it for a VM that can't be started."""

    name = "mark-starting"
    text = "claiming the VM"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, target: Start) -> None:
        target.vm = await self._store.move_vm(target.vm_id, VmState.STARTING, token=target.token)

    async def undo(self, target: VmTarget) -> None:
        try:
            vm = await self._store.vm(target.vm_id)
        except NotFound:
            return
        if vm.state is not VmState.STOPPED:
            await self._store.move_vm(target.vm_id, VmState.STOPPED)
