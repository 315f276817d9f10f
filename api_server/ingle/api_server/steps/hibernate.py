"""Say in the store that the VM hibernates, and end its VMM."""

import signal

from ingle.api_server.model.errors import NotFound, Reason, ToolFailed
from ingle.api_server.model.vm import VmState
from ingle.api_server.pipeline import uninterrupted
from ingle.api_server.ports.activation import ActivationSockets
from ingle.api_server.ports.engine import Vmms
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.release import Release
from ingle.api_server.steps.target import Sleep, VmTarget

_KILL_SECONDS = 30.0


class Hibernate:
    """Once the store says so there is no way back but to wake it, so undo goes on: a VMM that is left ends. Not before:
    its guest has all that it had for as long as anything may still fail."""

    name = "hibernate"
    text = "ending the VMM"

    def __init__(self, vms: VmStore, vmms: Vmms, release: Release, sockets: ActivationSockets) -> None:
        self._sockets = sockets
        self._vms = vms
        self._vmms = vmms
        self._release = release

    async def run(self, target: Sleep) -> None:
        await uninterrupted(self._hibernate(target))

    async def _hibernate(self, target: Sleep) -> None:
        target.vm = await self._vms.move(target.vm_id, VmState.HIBERNATED, op_id=target.op_id)
        ports = target.vm.settings.ports
        if ports and target.vm.slot is None:
            self._sockets.take_over(target.vm, target.vmm.published(ports))
        target.vmm.signal(signal.SIGKILL)
        if not await target.vmm.wait_gone(_KILL_SECONDS):
            raise ToolFailed(Reason.VMM_FAILED, f"VMM process {target.vmm.pid} survives SIGKILL")
        await self._release.of(target.vm)
        if ports and target.vm.slot is not None:
            self._sockets.take_over(target.vm, {})

    async def undo(self, target: VmTarget) -> None:
        try:
            vm = await self._vms.get(target.vm_id)
        except NotFound:
            return
        if vm.state is VmState.HIBERNATED:
            await self._vmms.kill_all(target.paths)
            await self._release.of(vm)
