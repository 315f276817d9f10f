"""Whether VMs are well, as their healthchecks have it.

A check is a command that nobody has asked for: it is not counted as use of the VM, and only a guest that runs is asked.
What it takes of the processors is noted, so that a guest which does nothing else still counts as one that nobody uses.
"""

import asyncio
import logging
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

from ingle.api_server.model.errors import HostProblem, IngleError, NotFound
from ingle.api_server.model.event import EventKind, of_vm
from ingle.api_server.model.guest import ExecSpec, Exited, Stderr, Stdout
from ingle.api_server.model.healthcheck import MOST_OUTPUT, NOT_RUN, Checked, HealthStatus, VmHealth, command_of
from ingle.api_server.model.image_config import Healthcheck
from ingle.api_server.model.vm import Vm
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.engine import Vmm
from ingle.api_server.ports.store.events import EventStore
from ingle.api_server.ports.store.vms import VmStore

log = logging.getLogger(__name__)

_FIRST_SECONDS = 1.0
_STARTING_SECONDS = 2.0
"""Between checks of a guest that has not been well yet: who waits for that need not wait for a whole interval."""

_MOST_KNOWN = 1000
"""Of which no more than so many may be of VMs that are no more."""

_GRACE_SECONDS = 5.0
"""For the guest's agent, after a check's own time."""

_MOST_HEARD = 1 << 20
"""Bytes that a check may say: all of them take the server's time, and nobody waits for them."""

_AT_ONCE = 32
"""Checks of one owner's VMs: whoever has thousands waits for themselves, and nobody else does."""


@dataclass(slots=True)
class _Known:
    """Of one boot of a VM's guest."""

    boot_id: str
    health: VmHealth = field(default_factory=VmHealth)
    counted_at: float = 0.0
    """When a failure was counted last, or the first check was made. By Clock.monotonic."""

    cpu_seconds: float = 0.0


class WatchHealth:
    """Asks guests, and remembers what came of it: the next server asks anew."""

    def __init__(self, vms: VmStore, guests: UseGuest, events: EventStore, clock: Clock) -> None:
        self._vms = vms
        self._guests = guests
        self._events = events
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._turns: defaultdict[int, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, _AT_ONCE))
        """By owner, a uid of this host."""

    def of(self, vm: Vm) -> VmHealth | None:
        """None for one that is not asked: it does not run, or has no healthcheck."""
        known = self._known.get(vm.id)
        if not vm.state.reachable or not command_of(vm.settings.healthcheck):
            return None
        return VmHealth() if known is None or known.boot_id != _boot_id(vm) else known.health

    def cpu_seconds(self, vm_id: str) -> float:
        """What checks have taken of that VM's processors, as its guest tells."""
        known = self._known.get(vm_id)
        return 0.0 if known is None else known.cpu_seconds

    async def keep(self, vm_id: str, vmm: Vmm) -> None:
        """As long as the VMM lives. What is known of a guest that hibernates is kept for when it wakes."""
        await self._forget_the_deleted()
        pause = _FIRST_SECONDS
        while not await vmm.wait_gone(pause):
            try:
                vm = await self._vms.get(vm_id)
            except NotFound:
                return
            check = vm.settings.healthcheck
            if not command_of(check):
                return
            pause = check.interval / 1000
            if not vm.state.reachable:
                pause = min(pause, _STARTING_SECONDS)
                continue
            known = self._known_of(vm)
            async with self._turns[vm.owner]:
                checked = await self._checked(vm, check, known) if await self._has_run(vm) else None
            if checked is not None:
                await self._note(vm, check, known, checked)
            if known.health.status is HealthStatus.STARTING:
                pause = min(pause, _STARTING_SECONDS)

    async def _forget_the_deleted(self) -> None:
        if len(self._known) > _MOST_KNOWN:
            there = {vm.id for vm in await self._vms.all()}
            self._known = {vm_id: known for vm_id, known in self._known.items() if vm_id in there}

    def _known_of(self, vm: Vm) -> _Known:
        known = self._known.get(vm.id)
        if known is None or known.boot_id != _boot_id(vm):
            known = self._known[vm.id] = _Known(_boot_id(vm), counted_at=self._clock.monotonic())
        return known

    async def _note(self, vm: Vm, check: Healthcheck, known: _Known, checked: Checked) -> None:
        now = self._clock.monotonic()
        # Of checks that come sooner than its owner wished none is counted.
        too_soon = now - known.counted_at < check.interval / 1000
        before, known.health = (
            known.health,
            known.health.after(checked, check, starts=too_soon or self._starts(vm, check)),
        )
        if known.health.failures != before.failures:
            known.counted_at = now
        if known.health.status is not before.status:
            status, said = known.health.status, " ".join(checked.output.split())
            message = said if status is HealthStatus.UNHEALTHY else ""
            try:
                await self._events.record(of_vm(EventKind.VM_HEALTH, vm, message=message, health=status.value))
            except HostProblem as error:  # the disk is full, which has nothing to do with it
                log.warning("a change of health is no event: %s", error.message, extra={"vm": vm.id})

    def _starts(self, vm: Vm, check: Healthcheck) -> bool:
        if vm.vmm is None:
            return False
        return 0 <= (self._clock.now() - vm.vmm.started_at).total_seconds() < check.start_period / 1000

    async def _checked(self, vm: Vm, check: Healthcheck, known: _Known) -> Checked | None:
        """How it ended; None when the guest did not run all the time, so that nothing follows from it."""
        exit_code, output = NOT_RUN, ""
        try:
            async with asyncio.timeout(check.timeout / 1000 + _GRACE_SECONDS):
                exit_code, output = await self._ask(vm, check, known)
        except TimeoutError:
            output = "the guest does not answer"
        except IngleError as error:
            output = error.message
        return Checked(self._clock.now(), exit_code, output) if await self._has_run(vm) else None

    async def _has_run(self, vm: Vm) -> bool:
        """Whether its guest has, ever since that was read."""
        try:
            now = await self._vms.get(vm.id)
        except NotFound:
            return False
        return now.state.reachable and now.state_since == vm.state_since

    async def _ask(self, vm: Vm, check: Healthcheck, known: _Known) -> tuple[int, str]:
        wish = ExecSpec(command_of(check), timeout_seconds=check.timeout / 1000, unnoticed=True)
        said, heard, exited = bytearray(), 0, Exited(NOT_RUN)
        async with self._guests.peek(vm).exec(vm.settings.workload.completed(wish)) as conversation:
            async for event in conversation.events():
                match event:
                    case Stdout(data) | Stderr(data):
                        said += data[: MOST_OUTPUT - len(said)]
                        heard += len(data)
                        if heard > _MOST_HEARD:
                            return NOT_RUN, f"it said more than {_MOST_HEARD >> 20} MiB"
                    case Exited():
                        exited = event
        known.cpu_seconds += exited.cpu_seconds
        if exited.timed_out:
            return NOT_RUN, f"it took longer than {check.timeout / 1000:g} s"
        return exited.exit_code, _text(bytes(said))


def _boot_id(vm: Vm) -> str:
    return "" if vm.vmm is None else vm.vmm.boot_id


def _text(said: bytes) -> str:
    """What a guest says, as it may be shown on somebody's terminal."""
    text = said.decode(errors="replace").strip()
    return "".join(char if char == "\n" or unicodedata.category(char)[0] != "C" else " " for char in text)
