"""Reserve name and address, and record the VM."""

from ingle.api_server.ports.store import Store
from ingle.api_server.steps.target import Start, VmTarget


class Reserve:
    """From here on the name is taken, and image and kernel can't be deleted."""

    name = "reserve"
    text = "reserving name and address"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, target: Start) -> None:
        target.vm = await self._store.insert_vm(target.vm, target.token, target.owner)

    async def undo(self, target: VmTarget) -> None:
        await self._store.delete_vm(target.vm_id)
