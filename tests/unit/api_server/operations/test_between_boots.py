"""A restart, and a change that needs one: whoever leaves and whatever is killed, the VM runs again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiosqlite
import pytest

from ingle.api_server.adapters.sqlite.database import Database
from ingle.api_server.model.errors import Conflict, IngleError, Reason, ToolFailed
from ingle.api_server.model.event import StopCause
from ingle.api_server.model.operation import OperationState
from ingle.api_server.model.spec import VmChange
from ingle.api_server.model.vm import Acceleration, LiveVmm, Vm, VmState
from ingle.api_server.operations.runner import Ongoing
from ingle.api_server.ports.engine import Ending
from ingle.api_server.steps.reboot import Reboot
from unit.api_server.recovering import recovery
from unit.api_server.vmms import NOW, VM, ScriptedVmm, World, mine, world, world_again

OP_ID = "op-0123456789ab"
MORE = VmChange(vcpus=2)
LARGER = VmChange(disk_bytes=VM.settings.disk_bytes * 2)


@dataclass
class Starts:
    """In place of StartVm: what it starts runs at once, unless it is to fail."""

    at: World
    failure: IngleError | None = None
    started: list[str] = field(default_factory=list)

    async def check_again(self, vm: Vm) -> None:
        """It could be started."""

    async def start_now(self, vm_id: str, progress: object) -> Vm:
        if self.failure is not None:
            raise self.failure
        self.started.append(vm_id)
        await self.at.store.vms.move(vm_id, VmState.STARTING)
        live = LiveVmm(4243, 100, Acceleration.TCG, NOW)
        vm = await self.at.store.vms.move(vm_id, VmState.RUNNING, vmm=live)
        self.at.fleet.attach(vm, ScriptedVmm())
        return vm


async def begun(at: World, start: Starts, change: VmChange = MORE) -> Ongoing[Vm]:
    return await at.updating(start=start).update(OP_ID, mine(VM.id), change, 1.0)


async def journal(at: World) -> list[str]:
    return [entry.step for entry in await at.store.journal.open_entries()]


async def test_it_runs_again_with_the_change(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.vmm.obeys, start = True, Starts(at)
        vm = await (await begun(at, start)).result()
        assert (vm.state, vm.settings.vcpus, start.started) == (VmState.RUNNING, 2, [VM.id])
        assert await journal(at) == []
        assert at.fleet.reboots.known() == []


async def test_a_restart_is_one_thing_also_for_who_leaves_in_the_middle_of_it(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        start = Starts(at)
        running = await at.between_boots(start).restart(OP_ID, mine(VM.id), 1.0)
        await at.vmm.signalled.wait()
        cancelling = asyncio.create_task(running.cancel())
        await asyncio.sleep(0)
        at.vmm.gone.set()
        await cancelling
        assert running.operation.state is OperationState.SUCCEEDED
        assert (await at.state(), start.started) == (VmState.RUNNING, [VM.id])
        assert await journal(at) == []


async def test_a_restart_that_can_not_start_says_that_it_has_stopped(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.vmm.obeys = True
        start = Starts(at, ToolFailed(Reason.VMM_FAILED, "it is gone", "install it"))
        running = await at.between_boots(start).restart(OP_ID, mine(VM.id), 1.0)
        with pytest.raises(IngleError, match="VM 'demo' is stopped, and can't be started: it is gone"):
            await running.result()
        assert await at.state() is VmState.STOPPED
        assert await journal(at) == []


@pytest.mark.parametrize("state", [VmState.STOPPED, VmState.ERROR])
async def test_a_restart_of_what_does_not_run_is_a_start(tmp_path: Path, state: VmState) -> None:
    async with world(tmp_path, state) as at:
        start = Starts(at)
        await (await at.between_boots(start).restart(OP_ID, mine(VM.id), 1.0)).result()
        assert (await at.state(), start.started) == (VmState.RUNNING, [VM.id])


async def test_a_restart_of_what_ends_by_itself_just_before_it_is_stopped_starts_it(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        start = Starts(at)
        async with at.fleet.lock(VM.id):
            running = await at.between_boots(start).restart(OP_ID, mine(VM.id), 1.0)
            while not await journal(at):
                await asyncio.sleep(0)
            await at.store.vms.move(VM.id, VmState.ERROR, error="it is no more", cause=StopCause.VMM_DIED)
            await at.fleet.detach(VM.id)
        await running.result()
        assert (await at.state(), start.started) == (VmState.RUNNING, [VM.id])
        assert await journal(at) == []


async def test_a_vm_that_does_not_run_is_not_started(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        start = Starts(at)
        vm = await (await begun(at, start)).result()
        assert (vm.state, vm.settings.vcpus, start.started) == (VmState.STOPPED, 2, [])


async def test_a_caller_who_leaves_while_it_stops_leaves_nothing_half_way(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        running = await begun(at, Starts(at))
        await at.vmm.signalled.wait()
        cancelling = asyncio.create_task(running.cancel())
        await asyncio.sleep(0)
        at.vmm.gone.set()
        await cancelling
        assert running.operation.state is OperationState.SUCCEEDED
        vm = await at.store.vms.get(VM.id)
        assert (vm.state, vm.settings.vcpus) == (VmState.RUNNING, 2)
        assert await journal(at) == []


async def test_a_vm_whose_change_fails_runs_again_as_it_was(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.vmm.obeys, start = True, Starts(at)
        at.shelf.failure = ToolFailed(Reason.DISK_FULL, "no space left")
        running = await begun(at, start, LARGER)
        at.shelf.detach = _detached  # type: ignore[method-assign] # it is stopped, and can't grow
        with pytest.raises(IngleError, match="no space left"):
            await running.result()
        vm = await at.store.vms.get(VM.id)
        assert (vm.state, vm.settings.disk_bytes) == (VmState.RUNNING, VM.settings.disk_bytes)
        assert await journal(at) == []


async def _detached(vm_id: str) -> None:
    """As it should."""


@pytest.mark.parametrize("change", [MORE, LARGER], ids=["changed", "as it was"])
async def test_what_can_not_be_started_again_says_what_it_is_now(tmp_path: Path, change: VmChange) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.vmm.obeys = True
        at.shelf.failure = ToolFailed(Reason.DISK_FULL, "no space left")
        at.shelf.detach = _detached  # type: ignore[method-assign]
        running = await begun(at, Starts(at, ToolFailed(Reason.VMM_FAILED, "it is gone", "install it")), change)
        with pytest.raises(IngleError) as raised:
            await running.result()
        told = {
            MORE: "VM 'demo' is changed, and can't be started: it is gone",
            LARGER: "no space left; and VM 'demo', as it was, can't be started: it is gone",
        }
        assert (raised.value.message, raised.value.reason) == (told[change], Reason.VMM_FAILED)
        assert raised.value.remedy == "install it"
        assert await journal(at) == []
        assert at.fleet.reboots.known() == []


async def test_who_wants_it_stopped_meanwhile_has_the_word_on_it(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.vmm.obeys, start = True, Starts(at)

        async def grow(directory: Path, size_bytes: int) -> None:
            at.fleet.stays_stopped(VM.id)

        at.shelf.grow = grow  # type: ignore[method-assign]
        vm = await (await begun(at, start, LARGER)).result()
        assert (vm.state, vm.settings.disk_bytes, start.started) == (VmState.STOPPED, LARGER.disk_bytes, [])
        assert await journal(at) == []


async def test_a_server_that_stops_leaves_the_start_to_the_next(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        running = await begun(at, Starts(at))
        await at.vmm.signalled.wait()
        closing = asyncio.create_task(at.operations.close())
        await asyncio.sleep(0)
        at.vmm.gone.set()
        await closing
        assert running.operation.state is OperationState.CANCELLED
        assert running.operation.failure is not None
        assert "the next one starts VM 'demo'" in running.operation.failure.message
        assert await at.state() is VmState.STOPPED
    async with world_again(tmp_path) as at:
        await recovery(at, tmp_path, Ended(), Reboot(at.fleet.rebooted)).run()
        assert at.fleet.reboots.known() == [VM.id]


class Ended:
    """An engine whose VMMs have been ended by who was about to."""

    def ending(self, *_: object) -> Ending | None:
        return None

    async def kill_all(self, *_: object) -> None:
        """There are none left."""


Begin = Callable[[World], Awaitable[Ongoing[Vm]]]


async def begun_change(at: World) -> Ongoing[Vm]:
    return await begun(at, Starts(at))


async def begun_restart(at: World) -> Ongoing[Vm]:
    return await at.between_boots(Starts(at)).restart(OP_ID, mine(VM.id), 1.0)


def killed_at(root: Path, instant: int, begin: Begin) -> bool:
    """Have a server killed at that instant of it, just before or just after a transaction; False when
    it is over by then."""
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(_begin_and_die(root, instant, begin))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


async def _begin_and_die(root: Path, instant: int, begin: Begin) -> None:
    left: int | None = None

    def pass_by() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left = None if left is None else left - 1

    class Doomed(Database):
        @asynccontextmanager
        async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
            pass_by()
            async with Database.transaction(self) as db:
                yield db
            pass_by()

    async with world(root, VmState.RUNNING) as at:
        at.store._database.__class__ = Doomed
        at.vmm.obeys = True
        left = instant
        await (await begin(at)).result()
        left = None


@pytest.mark.parametrize(
    ("begin", "expected"),
    [(begun_change, {"False 1", "True 1", "True 2"}), (begun_restart, {"False 1", "True 1"})],
    ids=["change", "restart"],
)
async def test_whenever_the_server_is_killed_the_vm_runs_or_the_next_one_starts_it(
    tmp_path: Path, begin: Begin, expected: set[str]
) -> None:
    seen: set[str] = set()
    for instant in range(100):
        root = tmp_path / str(instant)
        root.mkdir()
        if not await asyncio.to_thread(killed_at, root, instant, begin):
            break
        async with world_again(root) as at:
            stopped = (await at.store.vms.get(VM.id)).vmm is None
            await recovery(at, root, Ended(), *at.updating().steps, Reboot(at.fleet.rebooted), lives=False).run()
            vm = await at.store.vms.get(VM.id)
            assert vm.settings.vcpus in {1, 2}
            if stopped:
                assert at.fleet.reboots.known() == [VM.id], instant
            seen.add(f"{stopped} {vm.settings.vcpus}")
    assert expected <= seen


async def test_a_change_that_is_refused_stops_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        with pytest.raises(Conflict):
            await at.updating(start=Starts(at)).update(
                OP_ID, mine(VM.id), VmChange(vcpus=2, expected_generation=7), 1.0
            )
        assert at.vmm.signals == []
        assert await journal(at) == []
