"""VMs that are up when the host is: which they are when a server starts, in which order they come, and what keeps none
of them down."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.model.errors import HostProblem, InvalidArgument, Reason
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.spec import HostLimits, VmSpec
from ingle.api_server.model.vm import Acceleration, LiveVmm, Vm, VmState
from ingle.api_server.operations.auto_start import AutoStart
from ingle.api_server.operations.runner import Ongoing, Progress
from ingle.api_server.ports.engine import Ending
from ingle.api_server.steps.reboot import Reboot
from unit.api_server.recovering import recovery
from unit.api_server.vmms import NOW, VM, World, world, world_again

UNSEEN: Ending | None = None
OFF, CRASHED = Ending(), Ending("the guest's kernel panicked")


@dataclass
class Ended:
    """An engine whose VMMs are all gone, and how their guests ended."""

    how: Ending | None = UNSEEN

    def ending(self, *_: object) -> Ending | None:
        return self.how

    async def kill_all(self, *_: object) -> None:
        """There are none left."""


@dataclass
class Starts:
    """In place of StartVm: what it begins to start, and what ends."""

    at: World
    failing: frozenset[str] = frozenset()
    meeting: Mapping[str, asyncio.Barrier] = field(default_factory=dict)
    """Where those wait for each other that are started at the same time."""
    said: list[str] = field(default_factory=list)

    async def boot_again(self, vm_id: str, problem: str = "") -> Ongoing[None]:
        op_id = self.at.fleet.reboots.op_id(vm_id)
        assert op_id is not None

        async def work(progress: Progress) -> None:
            self.said.append(f"+{vm_id[-1]}")
            if vm_id in self.meeting:
                await self.meeting[vm_id].wait()
            self.said.append(f"-{vm_id[-1]}")
            await self.at.fleet.reboots.end(vm_id, op_id)
            if vm_id in self.failing:
                raise HostProblem(Reason.DISK_FULL, "no space left")

        return await self.at.operations.begin(op_id, 0, OperationKind.RESTART_VM, work, vm_id)


@asynccontextmanager
async def vms(root: Path, turns: Mapping[str, int], state: VmState = VmState.STOPPED) -> AsyncIterator[World]:
    """One for each id, whose turn that is; all are in that state since NOW."""
    async with world(root, VmState.STOPPED) as at:
        for vm_id, turn in turns.items():
            settings = replace(VM.settings, auto_start=turn)
            vm = replace(VM, id=vm_id, name=f"vm-{vm_id[-1]}", settings=settings, state=VmState.CREATING, slot=None)
            await at.store.vms.insert(vm, bytes(32))
            if state in {VmState.STOPPED, VmState.ERROR}:
                await at.store.vms.move(vm_id, VmState.STOPPED)
            else:
                await at.store.vms.move(vm_id, VmState.STARTING)
            if state is VmState.ERROR:
                await at.store.vms.move(vm_id, state, error="…")
            if state in {VmState.RUNNING, VmState.PAUSED, VmState.HIBERNATED}:
                await at.store.vms.move(vm_id, VmState.RUNNING, vmm=LiveVmm(4243, 1, Acceleration.TCG, NOW))
            if state in {VmState.PAUSED, VmState.HIBERNATED}:
                await at.store.vms.move(vm_id, VmState.PAUSED)
            if state is VmState.HIBERNATED:
                await at.store.vms.move(vm_id, state)
        yield at


ONE, TWO, THREE, FOUR = (f"00000000000{number}" for number in range(1, 5))


@pytest.mark.parametrize(
    ("state", "ending", "after_a_boot", "otherwise"),
    [
        (VmState.RUNNING, UNSEEN, True, True),
        (VmState.RUNNING, CRASHED, True, True),
        (VmState.RUNNING, OFF, True, False),
        (VmState.PAUSED, UNSEEN, True, True),
        (VmState.HIBERNATED, UNSEEN, False, False),
        (VmState.STARTING, UNSEEN, True, False),
        (VmState.STOPPED, UNSEEN, True, False),
        (VmState.ERROR, UNSEEN, True, False),
    ],
    ids=lambda value: value.value if isinstance(value, VmState) else None,
)
@pytest.mark.parametrize("wished", [True, False])
@pytest.mark.parametrize("booted", [True, False])
async def test_who_is_started_when_a_server_is(
    tmp_path: Path,
    state: VmState,
    ending: Ending | None,
    after_a_boot: bool,
    otherwise: bool,
    wished: bool,
    booted: bool,
) -> None:
    async with vms(tmp_path, {ONE: 5 if wished else 0}, state) as at:
        since = (await at.store.vms.get(ONE)).state_since
        at.clock.booted = since + timedelta(seconds=1 if booted else -1)
        await recovery(at, tmp_path, Ended(ending), lives=False).run()
        due = wished and (after_a_boot if booted else otherwise)
        assert at.fleet.reboots.known() == [ONE] * due
        vm = await at.store.vms.get(ONE)
        if state in {VmState.RUNNING, VmState.PAUSED}:  # until it is started it says what became of it
            assert vm.state is (VmState.STOPPED if ending is OFF else VmState.ERROR)
            assert bool(vm.error) == (ending is not OFF)


async def test_they_come_in_their_order_and_those_of_one_turn_together(tmp_path: Path) -> None:
    async with vms(tmp_path, {ONE: 900, TWO: 1, THREE: 20, FOUR: 20}) as at:
        for vm_id in (ONE, TWO, THREE, FOUR):
            await at.fleet.rebooted(vm_id)
        starts = Starts(at, meeting=dict.fromkeys((THREE, FOUR), asyncio.Barrier(2)))
        await AutoStart(at.store.vms, at.fleet, cast("Any", starts)).run()
        assert starts.said[:2] == ["+2", "-2"]
        assert sorted(starts.said[2:4]) == ["+3", "+4"]
        assert starts.said[6:] == ["+1", "-1"]
        assert await at.store.journal.open_entries() == []


async def test_one_that_can_not_be_started_holds_up_no_other(tmp_path: Path) -> None:
    async with vms(tmp_path, {ONE: 1, TWO: 2}) as at:
        for vm_id in (ONE, TWO):
            await at.fleet.rebooted(vm_id)
        starts = Starts(at, frozenset({ONE}))
        await AutoStart(at.store.vms, at.fleet, cast("Any", starts)).run()
        assert starts.said == ["+1", "-1", "+2", "-2"]


async def test_whose_turn_has_not_come_when_the_server_ends_is_started_by_the_next(tmp_path: Path) -> None:
    async with vms(tmp_path, {ONE: 1, TWO: 2}) as at:
        for vm_id in (ONE, TWO):
            await at.fleet.rebooted(vm_id)
        starts = Starts(at, meeting={ONE: asyncio.Barrier(2)})
        starting = asyncio.create_task(AutoStart(at.store.vms, at.fleet, cast("Any", starts)).run())
        while starts.said != ["+1"]:
            await asyncio.sleep(0)
        starting.cancel()
        await at.operations.close()
    async with world_again(tmp_path) as at:
        await recovery(at, tmp_path, Ended(), Reboot(at.fleet.rebooted), lives=False).run()
        assert at.fleet.reboots.known() == [ONE, TWO]


async def test_one_that_was_deleted_is_forgotten(tmp_path: Path) -> None:
    async with vms(tmp_path, {ONE: 1}) as at:
        await at.fleet.rebooted(ONE)
        await at.store.vms.delete(ONE)
        await AutoStart(at.store.vms, at.fleet, cast("Any", Starts(at))).run()
        assert await at.store.journal.open_entries() == []


@pytest.mark.parametrize("turn", [-1, 1001])
def test_a_turn_is_one_of_a_thousand(turn: int) -> None:
    with pytest.raises(InvalidArgument, match="1 to 1000"):
        VmSpec(auto_start=turn).check(HostLimits(vcpus=1, memory_bytes=2**30))


async def test_a_vm_has_the_turn_that_it_was_given(tmp_path: Path) -> None:
    async with vms(tmp_path, {ONE: 7}) as at:
        vm: Vm = await at.store.vms.get(ONE)
        assert vm.settings.auto_start == 7
