"""Have the guest stand still by itself: its hook runs, its disk is written, its processes freeze."""

from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps import hooks
from ingle.api_server.steps.target import Sleep, VmTarget


class Rest:
    """So nothing is lost but what only its memory has, should that be thrown away; one that is paused goes on for it. A
    guest that a killed server has left at rest goes on when it is resumed."""

    name = "rest"
    text = "asking the guest to stand still"

    def __init__(self, vms: VmStore, dialler: GuestDialler) -> None:
        self._vms = vms
        self._dialler = dialler

    async def run(self, target: Sleep) -> None:
        if target.paused_before:
            await target.vmm.resume()
        hooks.note(await self._dialler.channel(target.vmm.agent).rest(), target.vm_id)

    async def undo(self, target: VmTarget) -> None:
        if not isinstance(target, Sleep) or (await self._vms.get(target.vm_id)).state is not VmState.PAUSED:
            return
        hooks.note(await self._dialler.channel(target.vmm.agent).thaw(), target.vm_id)
        if target.paused_before:
            await target.vmm.pause()
