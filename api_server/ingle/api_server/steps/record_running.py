"""Say in the store that the VM runs, and which process it is."""

from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Start


class RecordRunning:
    """The last step of a start."""

    name = "record"
    text = "recording that it runs"

    def __init__(self, vms: VmStore, clock: Clock) -> None:
        self._vms = vms
        self._clock = clock

    async def run(self, target: Start) -> None:
        live = target.recorded(self._clock.now())
        target.vm = await self._vms.move(target.vm_id, VmState.RUNNING, vmm=live, link=target.link, op_id=target.op_id)
