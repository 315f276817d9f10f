"""Let a guest that is paused go on, with the right time and new entropy."""

import asyncio
import logging

from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps import hooks
from ingle.api_server.steps.target import Sleep
from ingle.api_server.steps.tell_time import news, tell_time

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 30.0  # whoever wants to end the VM waits as long


class Resume:
    """That it runs goes to the store when it does, and then its ports are led to it. A guest that can't be told goes on
    all the same, as it was, and the VM tells of it; and one whose ports can't be led is reached through the server."""

    name = "resume"
    text = "letting the guest go on"

    def __init__(self, vms: VmStore, network: HostNetwork, dialler: GuestDialler, clock: Clock) -> None:
        self._vms = vms
        self._network = network
        self._dialler = dialler
        self._clock = clock

    async def run(self, target: Sleep) -> None:
        await target.vmm.resume()
        problem = await self._told(target)
        target.vm = await self._vms.move(target.vm_id, VmState.RUNNING, op_id=target.op_id)
        problem = await self._led(target.vm) or problem
        if problem:
            await self._vms.note_sleep_error(target.vm_id, problem, target.op_id)

    async def _led(self, vm: Vm) -> str:
        """Why its ports are not; empty when they are."""
        if vm.slot is not None and vm.settings.ports:
            try:
                await self._network.connect(vm)
            except IngleError as error:
                log.error("ports of a VM that was resumed are not led to it: %s", error.message, extra={"vm": vm.id})
                return f"it was resumed, and its ports are not led to it: {error.message}"
        return ""

    async def _told(self, target: Sleep) -> str:
        """Why that was not possible; empty when it was."""
        channel = self._dialler.channel(target.vmm.agent)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await tell_time(channel, self._clock, news(target.vm.name if target.renamed else ""))
                if target.may_rest:
                    hooks.note(await channel.thaw(), target.vm_id)
        except (IngleError, TimeoutError) as error:
            why = error.message if isinstance(error, IngleError) else f"nothing within {_PATIENCE_SECONDS:.0f} s"
            log.warning("a guest that was resumed was not told so: %s", why, extra={"vm": target.vm_id})
            return f"it was resumed, and its agent does not answer: {why}"
        return ""
