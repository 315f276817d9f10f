"""Stop, restart, start, delete and update at the instants that go wrong."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.model.errors import Conflict, HostProblem, NotFound, Reason
from ingle.api_server.model.operation import OperationState
from ingle.api_server.model.spec import VmChange
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.start_vm import StartVm
from ingle.api_server.ports.engine import Vmms, VmPaths
from ingle.api_server.steps.delete import Delete
from unit.api_server.vmms import VM, ScriptedVmm, mine, world

OP_ID = "op-0123456789ab"


class CountingStart:
    """In place of StartVm, which a cancelled restart must not come to."""

    starts = 0

    async def check_again(self, vm: Vm) -> None:
        """It could be started."""

    async def start_now(self, vm_id: str, progress: object) -> None:
        self.starts += 1


class KillingEngine:
    """Kills the one VMM there is, after a turn of the loop that a cancellation can use."""

    def __init__(self, vmm: ScriptedVmm) -> None:
        self._vmm = vmm
        self.killing = asyncio.Event()

    async def kill_all(self, paths: VmPaths) -> None:
        self.killing.set()
        await asyncio.sleep(0)
        self._vmm.gone.set()


class FullDisk:
    """A disk backend without space."""

    name = "scripted"

    async def grow(self, directory: Path, size_bytes: int) -> None:
        raise HostProblem(Reason.DISK_FULL, "no space left")


async def test_a_stop_cancelled_before_the_guest_was_asked_leaves_the_vm_running(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        running = await at.stopping.stop(OP_ID, mine(VM.id), 1.0)
        await running.cancel()
        assert running.operation.state is OperationState.CANCELLED
        assert await at.state() is VmState.RUNNING
        assert (await at.store.vms.get(VM.id)).vmm is not None
        assert at.vmm.signals == []


async def test_a_stop_that_failed_half_way_can_be_repeated(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPING) as at:
        at.vmm.obeys = True
        running = await at.stopping.stop(OP_ID, mine(VM.id), 1.0)
        assert (await running.result()).state is VmState.STOPPED


async def test_a_change_cancelled_half_way_is_completed_and_told_as_done(tmp_path: Path) -> None:
    class SlowDisk:
        name = "scripted"
        growing = asyncio.Event()
        go_on = asyncio.Event()

        async def grow(self, directory: Path, size_bytes: int) -> None:
            self.growing.set()
            await self.go_on.wait()

    disk = SlowDisk()
    async with world(tmp_path, VmState.STOPPED) as at:
        update = at.updating({"scripted": cast("Any", disk)})
        running = await update.update(OP_ID, mine(VM.id), VmChange(name="other", disk_bytes=2**31))
        await disk.growing.wait()
        cancelling = asyncio.create_task(running.cancel())
        await asyncio.sleep(0)
        disk.go_on.set()
        await cancelling
        assert running.operation.state is OperationState.SUCCEEDED
        vm = await at.store.vms.get(VM.id)
        assert (vm.name, vm.settings.disk_bytes) == ("other", 2**31)


async def test_a_vm_whose_stop_failed_is_not_taken_for_stopped_by_a_start(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPING) as at:
        start = StartVm(
            operations=at.operations,
            vms=at.store.vms,
            journal=at.store.journal,
            clock=at.clock,
            fleet=at.fleet,
            **cast("dict[str, Any]", dict.fromkeys(_UNUSED)),
        )
        running = await start.start(OP_ID, mine(VM.id))
        with pytest.raises(Conflict) as refused:
            await running.result()
        assert refused.value.reason is Reason.WRONG_STATE
        assert await at.state() is VmState.STOPPING


_UNUSED = ("files", "engines", "resolve", "images", "kernels", "pipelines", "warm_starts", "room", "wake")


async def test_a_delete_cancelled_half_way_is_completed_and_told_as_done(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        engine = KillingEngine(at.vmm)
        step = Delete(at.store.vms, at.files, cast("Vmms", engine), at.network, at.backends)
        delete = DeleteVm(at.operations, at.store.vms, at.store.journal, at.fleet, at.files, step)
        running = await delete.delete(OP_ID, mine(VM.id), force=True)
        await engine.killing.wait()
        await running.cancel()
        assert running.operation.state is OperationState.SUCCEEDED
        assert not at.paths.state.exists()
        with pytest.raises(NotFound):
            await at.store.vms.get(VM.id)


async def test_a_vmm_is_watched_until_it_is_gone_so_that_it_is_reaped(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        step = Delete(at.store.vms, at.files, cast("Vmms", KillingEngine(at.vmm)), at.network, at.backends)
        running = await DeleteVm(at.operations, at.store.vms, at.store.journal, at.fleet, at.files, step).delete(
            OP_ID, mine(VM.id), force=True
        )
        await running.result()
        assert at.vmm.closed_alive is False


async def test_a_guest_that_does_not_answer_is_renamed_all_the_same(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        update = at.updating({})
        await (await update.update(OP_ID, mine(VM.id), VmChange(name="other"))).result()
        assert (await at.store.vms.get(VM.id)).name == "other"


async def test_a_change_whose_disk_can_not_grow_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        before = await at.store.vms.get(VM.id)
        disks = cast("Any", {"scripted": FullDisk()})
        update = at.updating(disks)
        change = VmChange(name="other", vcpus=2, disk_bytes=2 * before.settings.disk_bytes)
        running = await update.update(OP_ID, mine(VM.id), change)
        with pytest.raises(HostProblem):
            await running.result()
        after = await at.store.vms.get(VM.id)
        assert after.generation > before.generation  # who has seen what it was for a moment must look again
        assert replace(after, generation=before.generation) == before
