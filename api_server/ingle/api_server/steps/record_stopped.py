"""Say in the store that the VM is made and was not started."""

from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Start


class RecordStopped:
    """The last step of a create that shall not start."""

    name = "record"
    text = "recording that it is made"

    def __init__(self, vms: VmStore) -> None:
        self._vms = vms

    async def run(self, target: Start) -> None:
        target.vm = await self._vms.move(target.vm_id, VmState.STOPPED, op_id=target.op_id)
