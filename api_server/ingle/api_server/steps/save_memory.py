"""Write the guest's memory to the host's disk."""

from collections.abc import Mapping

from ingle.api_server.model.errors import NotFound
from ingle.api_server.model.vm import Kernel, VmState
from ingle.api_server.ports.engine import Engine, engine_of
from ingle.api_server.ports.memories import Memories, SavedMemory
from ingle.api_server.ports.store.items import ItemStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Sleep, VmTarget


class SaveMemory:
    """Of a guest that stands still. It is found there once all of it is, and nobody uses it before the store says that
    the VM hibernates."""

    name = "save-memory"
    text = "writing the guest's memory"

    def __init__(
        self, vms: VmStore, kernels: ItemStore[Kernel], engines: Mapping[str, Engine], memories: Memories
    ) -> None:
        self._vms = vms
        self._kernels = kernels
        self._engines = engines
        self._memories = memories

    async def run(self, target: Sleep) -> None:
        vm = target.vm
        assert vm.vmm is not None
        kernel = await self._kernels.get(vm.settings.kernel_id)
        live = vm.vmm
        key = await engine_of(vm, self._engines).memory_key(vm, kernel, live.acceleration)
        await target.vmm.save(await self._memories.begin(target.paths))
        saved = SavedMemory(vm.disk_generation, key, live.acceleration, live.boot_id)
        await self._memories.publish(target.paths, saved)

    async def undo(self, target: VmTarget) -> None:
        try:
            if (await self._vms.get(target.vm_id)).state is VmState.HIBERNATED:
                return
        except NotFound:  # it goes with all that is the VM's
            return
        await self._memories.remove(target.paths)
