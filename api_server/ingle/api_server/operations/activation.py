"""Published ports of VMs that are asleep wake them, whoever connects, and their names, whichever neighbour asks."""

import asyncio
import logging
from collections.abc import Collection

from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.wake_vm import WakeVm
from ingle.api_server.ports.activation import ActivationSockets, Door
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.store.vms import VmStore

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_LOOK_SECONDS_EACH = 0.005
"""With many that are paused each is looked at less often: a look costs a millisecond."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 120.0


class Activation:
    """Ports of one that hibernates are this server's, and those of one that is paused in a shared network. Of one in a
    network of its own they are its VMM's still, which takes connections and lets them wait by itself: it is asked
    whether there are any, so nothing has to change hands."""

    def __init__(
        self,
        vms: VmStore,
        fleet: Fleet,
        sockets: ActivationSockets,
        wake: WakeVm,
        clock: Clock,
        doors: Collection[Door],
    ) -> None:
        """`doors`: where somebody may come, beside `sockets`."""
        self._vms = vms
        self._fleet = fleet
        self._sockets = sockets
        self._doors = (sockets, *doors)
        self._wake = wake
        self._clock = clock
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, tuple[float, float]] = {}
        """Of those that could not be woken: how long nobody may try, and until when. By Clock.monotonic."""

    async def take_up(self) -> None:
        """From now on, of VMs that sleep already too."""
        for door in self._doors:
            door.waken = self.awake
        self._vms.watchers.append(self._look)
        for vm in await self._vms.all():
            self._look(vm.id)

    async def close(self) -> None:
        """Wake nobody any more."""
        if self._look in self._vms.watchers:
            self._vms.watchers.remove(self._look)
        for watching in self._watching.values():
            watching.cancel()
        await asyncio.gather(*self._watching.values(), return_exceptions=True)

    async def awake(self, vm_id: str) -> Vm | None:
        """The VM, once it was woken for who knocks; None when it was not. One that can't be is not tried again and
        again, however many knock: they are refused for a while, and for twice as long each time."""
        if (vm := self._vms.now(vm_id)) is None or vm.asleep_since is None:
            return vm
        pause, until = self._pauses.get(vm_id, (0.0, 0.0))
        if self._clock.monotonic() < until:
            return None
        try:
            await self._wake.waken(vm_id)
        except IngleError as error:
            log.warning("a VM could not be woken for who knocked: %s", error.message, extra={"vm": vm_id})
        except Exception:
            log.exception("a VM could not be woken for who knocked", extra={"vm": vm_id})
        else:
            self._pauses.pop(vm_id, None)
            return self._vms.now(vm_id)
        if self._pauses.get(vm_id, (0.0, 0.0)) == (pause, until):  # else another who waited has noted it
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) or _FIRST_PAUSE_SECONDS
            self._pauses[vm_id] = pause, self._clock.monotonic() + pause
        return None

    def _look(self, vm_id: str) -> None:
        """At a VM that may have changed."""
        if not vm_id:
            return
        try:
            vm = self._vms.now(vm_id)
            if vm is None:
                self._pauses.pop(vm_id, None)
            if vm is not None and vm.settings.ports and vm.asleep_since is not None:
                if vm.state is VmState.HIBERNATED:
                    self._sockets.listen(vm)
                elif vm.slot is not None:  # who connects it to its network has its ports from now on
                    self._sockets.retire(vm_id)
                elif vm.state is VmState.PAUSED and vm_id not in self._watching:
                    watching = asyncio.create_task(self._watch_paused(vm_id), name=f"activation-{vm_id}")
                    self._watching[vm_id] = watching
                    watching.add_done_callback(lambda _: self._watching.pop(vm_id))
            else:
                self._sockets.close(vm_id)
        except Exception:  # what was done to the VM is done
            log.exception("published ports may be other than they should", extra={"vm": vm_id})

    async def _watch_paused(self, vm_id: str) -> None:
        while (vm := self._vms.now(vm_id)) is not None and vm.state is VmState.PAUSED:
            try:
                if (vmm := self._fleet.vmm(vm_id)) is not None and await vmm.knocked():
                    await self.awake(vm_id)
            except IngleError as error:  # it is ending
                log.debug("a VM that is paused can't be looked at: %s", error.message, extra={"vm": vm_id})
            await asyncio.sleep(max(_LOOK_SECONDS, _LOOK_SECONDS_EACH * len(self._watching)))
