"""Look at VMs without changing them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.check import Check
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.guest import AgentInfo, GuestActivity, GuestStats
from ingle.api_server.model.spec import size_text
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.disk import DiskBackend, DiskChanges
from ingle.api_server.ports.engine import DiskTraffic, VmmUsage
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import LogWish, Said, VmFiles

T = TypeVar("T")

PATIENCE_SECONDS = 5.0
"""For a guest with much to do, unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class Health:
    """`problem` is empty when a running VM is well, or an idle one is idle on purpose.
    `activity` None when nobody could be asked."""

    state: VmState
    vmm_alive: bool
    agent_answers: bool
    problem: str
    activity: GuestActivity | None = None
    changes: DiskChanges | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """The host's and the guest's view; `guest` and `activity` None when the agent does not answer."""

    vmm: VmmUsage
    disk_allocated_bytes: int
    guest: GuestStats | None
    activity: GuestActivity | None
    changes: DiskChanges | None = None
    traffic: DiskTraffic | None = None


class InspectVm:
    """Everything read-only."""

    def __init__(
        self,
        vms: VmStore,
        fleet: Fleet,
        guests: UseGuest,
        files: VmFiles,
        backends: Mapping[str, DiskBackend],
        clock: Clock,
    ) -> None:
        self._vms = vms
        self._clock = clock
        self._fleet = fleet
        self._guests = guests
        self._files = files
        self._backends = backends

    async def health(self, reference: Reference, patience_seconds: float = PATIENCE_SECONDS) -> Health:
        """Never fails for a VM that exists. An agent that takes longer than the patience does not answer."""
        vm = await self._vms.find(reference)
        vmm = self._fleet.vmm(vm.id)
        if not vm.state.reachable or vmm is None:
            problem = self._fleet.silence(vm) or vm.error
            return Health(vm.state, vmm is not None, agent_answers=False, problem=problem)
        changes = await _answer(self._changes(vm))
        if stalled := self._fleet.stalled(vm.id):
            return Health(vm.state, vmm_alive=True, agent_answers=False, problem=stalled, changes=changes)
        channel = self._guests.peek(vm)
        problem = _disk_problem(vm, changes)
        try:
            await channel.ping(patience_seconds)
        except IngleError as error:
            problem = problem or error.message
            return Health(vm.state, vmm_alive=True, agent_answers=False, problem=problem, changes=changes)
        activity = await _answer(channel.activity(patience_seconds))
        return Health(vm.state, vmm_alive=True, agent_answers=True, problem=problem, activity=activity, changes=changes)

    def stalled(self, vm: Vm) -> str:
        """Why it stands still though it runs; empty when it doesn't."""
        return self._fleet.stalled(vm.id)

    async def check(self, caller: Caller) -> Check:
        """Whether all VMs that run, and that the caller may know, get on."""
        vms = await self._vms.of(caller, all_users=caller.admin)
        problems = [f"{vm.called_by(caller)}: {problem}" for vm in vms if (problem := self._fleet.stalled(vm.id))]
        if problems:
            return Check("vms", "fail", "; ".join(problems), "free some space: df -h")
        return Check("vms", "pass", f"{sum(vm.state is VmState.RUNNING for vm in vms)} of {len(vms)} run")

    async def ping(self, reference: Reference) -> tuple[float, AgentInfo]:
        """Seconds of a round trip to the agent, and what it answered. It wakes nobody: Conflict(WRONG_STATE)."""
        vm = await self._vms.find(reference)
        self._fleet.running_vmm(vm)
        async with self._guests.inside(vm) as channel:
            began = self._clock.monotonic()
            info = await channel.ping()
            return self._clock.monotonic() - began, info

    async def stats(self, reference: Reference) -> Stats:
        """Raises Conflict(WRONG_STATE) for a VM that has no VMM."""
        vm = await self._vms.find(reference)
        vmm = self._fleet.live_vmm(vm)
        usage = vmm.usage()
        disk = self._backends[vm.settings.disk_backend].disk_path(self._files.paths(vm.id).state)
        allocated = self._files.allocated_bytes(disk)
        changes, traffic = await asyncio.gather(_answer(self._changes(vm)), _answer(vmm.disk_traffic()))
        if not vm.state.reachable or self._fleet.stalled(vm.id):
            return Stats(usage, allocated, None, None, changes, traffic)
        channel = self._guests.peek(vm)
        guest, activity = await asyncio.gather(_answer(channel.stats()), _answer(channel.activity()))
        return Stats(usage, allocated, guest, activity, changes, traffic)

    async def _changes(self, vm: Vm) -> DiskChanges | None:
        return await self._backends[vm.settings.disk_backend].changes(vm.id, self._files.paths(vm.id).state)

    async def logs(self, reference: Reference, wish: LogWish, *, vmm: bool) -> AsyncIterator[Said]:
        """The console, or the VMM's stderr."""
        paths = self._files.paths((await self._vms.find(reference)).id)
        async for said in self._files.stream(paths.vmm_log if vmm else paths.console_log, wish):
            yield said


async def _answer(question: Awaitable[T]) -> T | None:
    """None when guest or helper don't answer: a guest too busy for it is when the host's view is wanted most, and an
    agent from before an upgrade knows less than we ask for."""
    try:
        return await question
    except IngleError:
        return None


def _disk_problem(vm: Vm, changes: DiskChanges | None) -> str:
    if changes is None or not changes.filling:
        return ""
    if changes.overflowed:
        return f"its disk is lost: the host's disk was full when the guest wrote to it; ingle vm delete -f {vm.name}"
    most = changes.capacity_bytes - changes.used_bytes
    return (
        f"its disk will be lost when the host's is full: that has {size_text(changes.free_bytes)} left, and "
        f"{size_text(most)} of changes may still come; free some space, or stop it"
    )
