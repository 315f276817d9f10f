"""End a VM's VMM without asking its guest, which is about to be put back."""

from collections.abc import Awaitable, Callable

from ingle.api_server.model.vm import Vm
from ingle.api_server.steps.target import Restoring


class EndVmm:
    """And what else is kept of its guest, such as the memory of one that sleeps."""

    name = "end-vmm"
    text = "ending the guest as it is now"

    def __init__(self, end: Callable[[str, str], Awaitable[Vm]]) -> None:
        """`end` takes the VM's id and the operation's."""
        self._end = end

    async def run(self, target: Restoring) -> None:
        await self._end(target.vm_id, target.op_id)
