"""Remove a VM and everything it owns."""

from collections.abc import Mapping

from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.engine import Engine
from ingle.api_server.ports.files import VmFiles
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.store import Store
from ingle.api_server.steps.attach_disk import detach_disk
from ingle.api_server.steps.target import VmTarget


class Delete:
    """There is no way back from half a deletion, so undo goes on with it: a failure or a crash only delays it.

    Every part is tried even when another fails. The row goes before the files: what is listed is whole."""

    name = "delete"
    text = "deleting the VM"

    def __init__(
        self,
        store: Store,
        files: VmFiles,
        engine: Engine,
        network: HostNetwork,
        backends: Mapping[str, DiskBackend],
    ) -> None:
        self._store = store
        self._files = files
        self._engine = engine
        self._network = network
        self._backends = backends

    async def run(self, target: VmTarget) -> None:
        errors: list[Exception] = []
        for part in (
            self._engine.kill_all(target.paths),
            self._disconnect(target),
            detach_disk(target.vm_id, self._backends, self._store),
            self._store.delete_vm(target.vm_id),
            self._files.remove_runtime(target.paths),
            self._files.remove_state(target.paths),
        ):
            try:
                await part
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup(f"VM {target.vm_id} could not be deleted completely", errors)

    async def _disconnect(self, target: VmTarget) -> None:
        slot = await self._store.vm_slot(target.vm_id)
        if slot is not None:
            await self._network.disconnect(slot, target.vm_id)

    async def undo(self, target: VmTarget) -> None:
        await self.run(target)
