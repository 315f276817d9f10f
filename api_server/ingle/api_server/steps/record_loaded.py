"""Say in the store that the VM is paused, with its memory loaded."""

from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Start


class RecordLoaded:
    """The last step of a wake: what was saved is used up, before the guest may change its disk, with which it must
    never meet again. In the same instant the wake is complete: here is a VM that can be resumed, whatever happens."""

    name = "record-loaded"
    text = "using up what was saved"

    def __init__(self, vms: VmStore, clock: Clock) -> None:
        self._vms = vms
        self._clock = clock

    async def run(self, target: Start) -> None:
        live = target.recorded(self._clock.now())
        target.vm = await self._vms.move(
            target.vm_id, VmState.PAUSED, vmm=live, link=target.link, op_id=target.op_id, completes=True
        )
