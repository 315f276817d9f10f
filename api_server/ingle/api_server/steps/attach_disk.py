"""Have the host give the VM its root disk."""

from collections.abc import Mapping

from ingle.api_server.model.errors import NotFound
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.store import Store
from ingle.api_server.steps.target import Start, VmTarget


class AttachDisk:
    """A disk that is a file is there already: its VMM opens it."""

    name = "attach-disk"
    text = "attaching the root disk"

    def __init__(self, backends: Mapping[str, DiskBackend], store: Store) -> None:
        self._backends = backends
        self._store = store

    async def run(self, target: Start) -> None:
        target.root_disk = await self._backends[target.vm.disk_backend].attach(target.vm, target.paths.state)

    async def undo(self, target: VmTarget) -> None:
        await detach_disk(target.vm_id, self._backends, self._store)


async def detach_disk(vm_id: str, backends: Mapping[str, DiskBackend], store: Store) -> None:
    """From the id alone. What is left of a VM that nobody knows any more, a starting server's reconciling removes."""
    try:
        vm = await store.vm(vm_id)
    except NotFound:
        return
    if vm.id == vm_id:  # and no other with such a name
        await backends[vm.disk_backend].detach(vm_id)
