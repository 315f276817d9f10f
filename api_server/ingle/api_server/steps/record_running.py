"""Say in the store that the VM runs, and which process it is."""

from dataclasses import replace
from datetime import UTC, datetime

from ingle.api_server.model.vm import Running, VmState
from ingle.api_server.ports.store import Store
from ingle.api_server.steps.target import Start


class RecordRunning:
    """The last step of a start."""

    name = "record"
    text = "recording that it runs"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, target: Start) -> None:
        vmm = target.live_vmm
        running = Running(vmm.pid, vmm.start_time, target.acceleration, datetime.now(UTC), target.boot_id)
        if target.link is not None:
            running = replace(running, address=target.link.address, address6=target.link.address6)
        target.vm = await self._store.move_vm(target.vm_id, VmState.RUNNING, running=running)
