"""Look at VMs without changing them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ingle.api_server.model.check import Check
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.guest import AgentInfo, GuestActivity, GuestStats
from ingle.api_server.model.spec import size_text
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import NO_ANSWER, Fleet
from ingle.api_server.ports.disk import DiskBackend, DiskChanges
from ingle.api_server.ports.engine import VmmUsage
from ingle.api_server.ports.files import VmFiles
from ingle.api_server.ports.store import Store

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


class InspectVm:
    """Everything read-only."""

    def __init__(self, store: Store, fleet: Fleet, files: VmFiles, backends: Mapping[str, DiskBackend]) -> None:
        self._store = store
        self._fleet = fleet
        self._files = files
        self._backends = backends

    async def health(self, reference: str, patience_seconds: float = PATIENCE_SECONDS) -> Health:
        """Never fails for a VM that exists. An agent that takes longer than the patience does not answer."""
        vm = await self._store.find_vm(reference)
        vmm = self._fleet.vmm(vm.id)
        if vm.state is not VmState.RUNNING or vmm is None:
            problem = NO_ANSWER if vm.state is VmState.RUNNING else vm.error
            return Health(vm.state, vmm is not None, agent_answers=False, problem=problem)
        changes = await _answer(self._changes(vm))
        if stalled := self._fleet.stalled(vm.id):
            return Health(vm.state, vmm_alive=True, agent_answers=False, problem=stalled, changes=changes)
        channel = self._fleet.channel(vm)
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

    async def check(self) -> Check:
        """Whether all VMs that run get on."""
        vms = await self._store.vms()
        problems = [f"{vm.name}: {problem}" for vm in vms if (problem := self._fleet.stalled(vm.id))]
        if problems:
            return Check("vms", "fail", "; ".join(problems), "free some space: df -h")
        return Check("vms", "pass", f"{sum(vm.state is VmState.RUNNING for vm in vms)} of {len(vms)} run")

    async def ping(self, reference: str) -> tuple[float, AgentInfo]:
        """Seconds of a round trip to the agent, and what it answered."""
        channel = self._fleet.channel(await self._store.find_vm(reference))
        began = time.perf_counter()
        info = await channel.ping()
        return time.perf_counter() - began, info

    async def stats(self, reference: str) -> Stats:
        """Raises Conflict(WRONG_STATE) for a VM that does not run."""
        vm = await self._store.find_vm(reference)
        usage = self._fleet.running_vmm(vm).usage()
        disk = self._backends[vm.disk_backend].disk_path(self._files.paths(vm.id).state)
        allocated = self._files.allocated_bytes(disk)
        if self._fleet.stalled(vm.id):
            return Stats(usage, allocated, None, None, await _answer(self._changes(vm)))
        channel = self._fleet.channel(vm)
        guest, activity, changes = await asyncio.gather(
            _answer(channel.stats()), _answer(channel.activity()), _answer(self._changes(vm))
        )
        return Stats(usage, allocated, guest, activity, changes)

    async def _changes(self, vm: Vm) -> DiskChanges | None:
        return await self._backends[vm.disk_backend].changes(vm.id, self._files.paths(vm.id).state)

    async def logs(self, reference: str, *, vmm: bool, follow: bool, tail_lines: int | None) -> AsyncIterator[bytes]:
        """The console, or the VMM's stderr."""
        paths = self._files.paths((await self._store.find_vm(reference)).id)
        file = paths.vmm_log if vmm else paths.console_log
        async for data in self._files.stream(file, follow=follow, tail_lines=tail_lines):
            yield data


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
