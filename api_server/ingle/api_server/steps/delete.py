"""Remove a VM and everything it owns."""

from collections.abc import Mapping

from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.engine import Vmms
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.attach_disk import detach_disk
from ingle.api_server.steps.target import VmTarget


class Delete:
    """There is no way back from half a deletion, so undo goes on with it: a failure or a crash only delays it.

    Every part is tried even when another fails. The row goes before the files: what is listed is whole."""

    name = "delete"
    text = "deleting the VM"

    def __init__(
        self,
        vms: VmStore,
        files: VmFiles,
        vmms: Vmms,
        network: HostNetwork,
        backends: Mapping[str, DiskBackend],
    ) -> None:
        self._vms = vms
        self._files = files
        self._vmms = vmms
        self._network = network
        self._backends = backends

    async def run(self, target: VmTarget) -> None:
        errors: list[Exception] = []
        for part in (
            self._vmms.kill_all(target.paths),
            self._disconnect(target),
            detach_disk(target.vm_id, self._backends, self._vms),
            self._vms.delete(target.vm_id, target.op_id),
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
        slot = await self._vms.slot(target.vm_id)
        if slot is not None:
            await self._network.disconnect(slot, target.vm_id)

    async def undo(self, target: VmTarget) -> None:
        await self.run(target)
