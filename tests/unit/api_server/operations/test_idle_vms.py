"""What becomes of VMs that nobody uses, by a clock that a test sets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingle.api_server.model.errors import HostProblem, InvalidArgument, NotFound, Reason
from ingle.api_server.model.guest import AgentEndpoint, GuestActivity
from ingle.api_server.model.idleness import LONGEST_SECONDS
from ingle.api_server.model.operation import OperationKind, OperationState
from ingle.api_server.model.spec import HostLimits, VmSpec
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.idle_vms import IdleVms
from ingle.api_server.steps.delete import Delete
from unit.api_server.sleeping import sleeping
from unit.api_server.vmms import NOW, VM, ScriptedVmm, World, mine, world

QUIET = GuestActivity(idle_seconds=10_000.0, execs=0, sessions=1, attached_sessions=0, forwards=0)


class Guests:
    """A dialler whose guests tell of the activity that a test says, and count how often they are asked."""

    def __init__(self) -> None:
        self.told = QUIET
        self.asked = 0

    def channel(self, endpoint: AgentEndpoint) -> Any:
        return self

    async def activity(self, timeout_seconds: float) -> GuestActivity:
        self.asked += 1
        return self.told


class Engine:
    """Whose VMMs end when they are told to."""

    def __init__(self, vmm: ScriptedVmm) -> None:
        self._vmm = vmm

    info = SimpleNamespace(saves=True)

    async def memory_key(self, *_: object) -> str:
        return "the only one"

    async def kill_all(self, *_: object) -> None:
        self._vmm.gone.set()


@asynccontextmanager
async def idle(root: Path, **wishes: Any) -> AsyncIterator[tuple[World, IdleVms, Guests]]:
    """A VM that runs, whose owner wishes that."""
    async with world(root, VmState.RUNNING) as at:
        vm = await at.store.vms.get(VM.id)
        await at.store.vms.change(replace(vm, settings=replace(vm.settings, **wishes)))
        at.vmm.obeys = True
        at.clock.seconds = ((await at.store.vms.get(VM.id)).state_since - NOW).total_seconds()
        guests = Guests()
        vars(at.guests)["_dialler"] = guests
        engine = cast("Any", Engine(at.vmm))
        delete_step = Delete(at.store.vms, at.files, engine, at.network, at.backends)
        delete = DeleteVm(at.operations, at.store.vms, at.store.journal, at.fleet, at.files, delete_step)
        sleep = sleeping(at, {VM.settings.engine: engine})
        policies = IdleVms(at.store.vms, at.fleet, at.guests, sleep, delete, at.clock)
        await policies.look()
        yield at, policies, guests


async def after(at: World, policies: IdleVms, seconds: float) -> VmState:
    """What the VM does when that time has passed."""
    at.clock.seconds += seconds
    await policies.look()
    return await at.state()


async def test_a_vm_without_a_wish_is_neither_asked_nor_put_to_sleep(tmp_path: Path) -> None:
    async with idle(tmp_path) as (at, policies, guests):
        assert await after(at, policies, 10**6) is VmState.RUNNING
        assert guests.asked == 0


async def test_one_that_nobody_uses_is_paused_then_hibernated_then_deleted(tmp_path: Path) -> None:
    async with idle(tmp_path, pause_after=60, hibernate_after=600, delete_after=3600) as (at, policies, guests):
        assert await after(at, policies, 59) is VmState.RUNNING
        assert guests.asked == 0, "it can't be due yet"
        assert await after(at, policies, 1) is VmState.PAUSED
        at.clock.seconds = ((await at.store.vms.get(VM.id)).state_since - NOW).total_seconds()
        assert await after(at, policies, 599) is VmState.PAUSED
        assert await after(at, policies, 1) is VmState.HIBERNATED
        assert await after(at, policies, 2999) is VmState.HIBERNATED
        assert guests.asked == 1, "one that sleeps is not asked"
        with pytest.raises(NotFound):
            await after(at, policies, 1)
        kinds = [operation.kind for operation in await at.store.operations.latest()]
        assert kinds == [OperationKind.DELETE_VM, OperationKind.HIBERNATE_VM, OperationKind.PAUSE_VM]


@pytest.mark.parametrize("state", [VmState.STOPPED, VmState.ERROR])
async def test_one_that_has_not_run_for_so_long_is_deleted(tmp_path: Path, state: VmState) -> None:
    async with idle(tmp_path, delete_after=3600) as (at, policies, _):
        at.vmm.gone.set()
        await at.store.vms.move(VM.id, VmState.STOPPED)
        if state is VmState.ERROR:
            await at.store.vms.move(VM.id, VmState.ERROR)
        at.clock.seconds = ((await at.store.vms.get(VM.id)).state_since - NOW).total_seconds()
        assert await after(at, policies, 3599) is state
        with pytest.raises(NotFound):
            await after(at, policies, 1)


async def test_one_that_is_kept_awake_does_not_fall_asleep_by_itself(tmp_path: Path) -> None:
    async with idle(tmp_path, pause_after=60, hibernate_after=60, keep_awake=True) as (at, policies, _):
        assert await after(at, policies, 10**6) is VmState.RUNNING


@pytest.mark.parametrize(
    "what", ["execs", "attached_sessions", "forwards", "connections", "carried", "inside", "processor"]
)
async def test_what_is_used_stays_awake_and_its_time_begins_anew(tmp_path: Path, what: str) -> None:
    async with idle(tmp_path, pause_after=60) as (at, policies, guests):
        match what:
            case "carried":
                at.vmm.open_connections = 1
            case "inside":
                async with at.guests.use(mine(VM.id)):
                    assert await after(at, policies, 10**6) is VmState.RUNNING
            case "processor":
                at.vmm.cpu_seconds += 0.11 * 60
                assert await after(at, policies, 60) is VmState.RUNNING
            case _:
                guests.told = replace(QUIET, **{what: 1})
        if what in {"carried", "connections", "execs", "attached_sessions", "forwards"}:
            assert await after(at, policies, 10**6) is VmState.RUNNING
        at.vmm.open_connections, guests.told = 0, QUIET
        assert await after(at, policies, 59) is VmState.RUNNING
        assert await after(at, policies, 60) is VmState.PAUSED


async def test_a_byte_that_has_just_passed_counts_whoever_was_there(tmp_path: Path) -> None:
    async with idle(tmp_path, pause_after=60) as (at, policies, guests):
        guests.told = replace(QUIET, idle_seconds=30.0)
        assert await after(at, policies, 10**4) is VmState.RUNNING


async def test_what_its_healthchecks_take_of_the_processor_is_no_use_of_a_vm(tmp_path: Path) -> None:
    async with idle(tmp_path, pause_after=60) as (at, policies, _guests):
        taken = {VM.id: 0.0}
        vars(policies)["_of_no_use"] = taken.__getitem__
        at.vmm.cpu_seconds += 0.5 * 60
        taken[VM.id] += 0.45 * 60
        assert await after(at, policies, 60) is VmState.PAUSED


async def test_a_session_that_nobody_looks_at_keeps_nobody_awake(tmp_path: Path) -> None:
    async with idle(tmp_path, pause_after=60) as (at, policies, guests):
        assert guests.told.sessions == 1
        assert await after(at, policies, 60) is VmState.PAUSED


class NeverPauses(ScriptedVmm):
    tries = 0

    async def pause(self) -> None:
        self.tries += 1
        raise HostProblem(Reason.DISK_FULL, "no space left")


async def test_what_can_not_fall_asleep_is_told_and_not_tried_again_before_somebody_has_used_it(
    tmp_path: Path,
) -> None:
    async with idle(tmp_path, pause_after=60) as (at, policies, _):
        vmm = NeverPauses()
        at.fleet.attach(await at.store.vms.get(VM.id), vmm)
        for _ in range(5):
            assert await after(at, policies, 10**4) is VmState.RUNNING
        assert vmm.tries == 1
        assert (await at.store.vms.get(VM.id)).error == "it could not fall asleep: no space left"
        (operation,) = await at.store.operations.latest()
        assert operation.state is OperationState.FAILED
        async with at.guests.use(mine(VM.id)):
            pass
        await after(at, policies, 1)
        await after(at, policies, 10**4)
        assert vmm.tries == 2
        vmm.gone.set()


async def test_who_comes_while_a_vm_falls_asleep_finds_it_awake(tmp_path: Path) -> None:
    async with idle(tmp_path, pause_after=60) as (at, _, _):
        waited: list[str] = []

        async def waken(vm_id: str) -> None:
            waited.append(vm_id)

        at.guests.waken = waken
        with at.guests.closed(VM.id) as empty:
            assert empty
            async with at.guests.use(mine(VM.id)):
                assert waited == [VM.id]
        async with at.guests.use(mine(VM.id)):
            with at.guests.closed(VM.id) as empty:
                assert not empty
        assert waited == [VM.id]


@pytest.mark.parametrize("seconds", [-1, LONGEST_SECONDS + 1])
def test_a_wish_that_can_not_be_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidArgument, match="up to ten years"):
        VmSpec(hibernate_after=seconds).check(HostLimits(vcpus=1, memory_bytes=2**40))
