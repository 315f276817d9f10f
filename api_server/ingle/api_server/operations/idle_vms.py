"""What becomes of VMs that nobody uses, as their owners wish: they are paused, hibernated, deleted.

A guest is used while somebody is inside of it, through this server or any other; while a command or a terminal that
somebody is attached to runs in it, or a connection to it is open; and while it does something by itself. A guest that
sleeps is not asked.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.guest import GuestActivity
from ingle.api_server.model.ids import new_op_id
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.sleep_vm import SleepVm
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.engine import Vmm
from ingle.api_server.ports.store.vms import VmStore

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_PATIENCE_SECONDS = 5.0
_BUSY = 0.1
"""Of one processor's time, over the time from one look to the next: more than that is something that a guest does."""


@dataclass(slots=True)
class _Seen:
    """Of a VM that runs, since its VMM was first looked at."""

    pid: int
    used_at: float
    """When it was used last, as far as this server knows. By Clock.monotonic, as the next one."""
    looked_at: float
    cpu_seconds: float


class IdleVms:
    """Looks at VMs whose owners wish something of the kind, and at no others."""

    def __init__(
        self,
        vms: VmStore,
        fleet: Fleet,
        guests: UseGuest,
        sleep: SleepVm,
        delete: DeleteVm,
        clock: Clock,
        of_no_use: Callable[[str], float] = lambda vm_id: 0.0,
    ) -> None:
        """`of_no_use`: what a VM's guest has taken of processors for what is no use of it, in seconds."""
        self._vms = vms
        self._fleet = fleet
        self._guests = guests
        self._sleep = sleep
        self._delete = delete
        self._clock = clock
        self._of_no_use = of_no_use
        self._seen: dict[str, _Seen] = {}
        self._failed: set[str] = set()
        """Those with which it could not be done: that is not tried again before somebody has used them."""

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Exception:  # a full disk, say: the next look may be better
                log.exception("VMs that nobody uses could not be looked at")

    async def look(self) -> None:
        """Once at each, at the same time: one that does not answer holds no other up."""
        used = self._guests.used()
        wished = [vm for vm in await self._vms.all() if _wishes(vm)]
        self._seen = {vm.id: self._seen[vm.id] for vm in wished if vm.id in self._seen}
        self._failed = {vm.id for vm in wished if vm.id in self._failed and vm.id not in used}
        await asyncio.gather(*(self._look_at(vm, used) for vm in wished))

    async def _look_at(self, vm: Vm, used: Collection[str]) -> None:
        try:
            idle = await self._idle_seconds(vm, used)
            await self._do(vm, idle)
        except IngleError as error:  # it is gone by now, busy, or the server stops
            log.warning("a VM that nobody uses stays as it is: %s", error.message, extra={"vm": vm.id})
            self._failed.add(vm.id)

    async def _do(self, vm: Vm, idle: float) -> None:
        wish = vm.settings
        if vm.id in self._failed:
            return
        if wish.delete_after and idle >= wish.delete_after:
            log.info("deleting a VM that nobody uses", extra={"vm": vm.id, "idle": idle})
            await (await self._delete.delete_kept(new_op_id(), vm.id)).result()
            return
        if wish.keep_awake or vm.state not in {VmState.RUNNING, VmState.PAUSED}:
            return
        if wish.hibernate_after and idle >= wish.hibernate_after:
            await self._sleep.unused(vm, VmState.HIBERNATED)
        elif vm.state is VmState.RUNNING and wish.pause_after and idle >= wish.pause_after:
            await self._sleep.unused(vm, VmState.PAUSED)

    async def _idle_seconds(self, vm: Vm, used: Collection[str]) -> float:
        """For how long nobody has used it; of one that does not run, for how long it does not."""
        since = vm.state_since if vm.asleep_since is None else vm.asleep_since
        still = max(0.0, (self._clock.now() - since).total_seconds())
        vmm = self._fleet.vmm(vm.id)
        if vm.state is not VmState.RUNNING or vmm is None:
            return still if vm.state.asleep or vm.state.idle else 0.0
        now = self._clock.monotonic()
        seen = self._looked(vm, vmm, now)
        if vm.id in used:
            seen.used_at = now
        idle = min(still, now - seen.used_at)
        if idle < min(_wishes(vm)):
            return idle
        if await vmm.connections():
            seen.used_at = now
            return 0.0
        activity = await self._guests.peek(vm).activity(_PATIENCE_SECONDS)
        if _is_used(activity):
            seen.used_at = now
            return 0.0
        return min(idle, activity.idle_seconds)

    def _looked(self, vm: Vm, vmm: Vmm, now: float) -> _Seen:
        """What is known of it, with what its VMM has used since. One that is seen first has just been used."""
        cpu_seconds = vmm.usage().cpu_seconds - self._of_no_use(vm.id)
        seen = self._seen.get(vm.id)
        if seen is None or seen.pid != vmm.pid:
            seen = self._seen[vm.id] = _Seen(vmm.pid, now, now, cpu_seconds)
        if cpu_seconds - seen.cpu_seconds > _BUSY * (now - seen.looked_at):
            seen.used_at = now
        seen.looked_at, seen.cpu_seconds = now, cpu_seconds
        return seen


def _wishes(vm: Vm) -> list[int]:
    """After how many seconds anything is to happen."""
    wish = vm.settings
    return [seconds for seconds in (wish.pause_after, wish.hibernate_after, wish.delete_after) if seconds]


def _is_used(activity: GuestActivity) -> bool:
    return bool(activity.execs or activity.attached_sessions or activity.forwards or activity.connections)
