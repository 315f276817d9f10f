"""Stop, restart, start, delete and update at the instants that go wrong."""

import asyncio
import signal
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.errors import Conflict, HostProblem, NotFound, Reason
from ingle.api_server.model.operation import OperationState
from ingle.api_server.model.spec import HostLimits, VmChange
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.start_vm import StartVm
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.operations.update_vm import UpdateVm
from ingle.api_server.ports.engine import Engine, VmPaths
from ingle.api_server.steps.delete import Delete
from unit.server.vmms import VM, ScriptedVmm, World, world

OP_ID = "op-0123456789ab"


class CountingStart:
    """In place of StartVm, which a cancelled restart must not come to."""

    starts = 0

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


def stopping(at: World, start: Any = None) -> StopVm:
    return StopVm(at.operations, at.store, at.fleet, at.release, Dialler(), start)


async def test_a_stop_cancelled_before_the_guest_was_asked_leaves_the_vm_running(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        running = await stopping(at).stop(OP_ID, VM.id, 1.0)
        await running.cancel()
        assert running.operation.state is OperationState.CANCELLED
        assert await at.state() is VmState.RUNNING
        assert (await at.store.vm(VM.id)).running is not None
        assert at.vmm.signals == []


async def test_a_stop_that_failed_half_way_can_be_repeated(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPING) as at:
        at.vmm.obeys = True
        running = await stopping(at).stop(OP_ID, VM.id, 1.0)
        assert (await running.result()).state is VmState.STOPPED


async def test_a_restart_cancelled_while_the_vmm_ends_does_not_start_it_again(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        start = CountingStart()
        running = await stopping(at, start).restart(OP_ID, VM.id, 1.0)
        await at.vmm.signalled.wait()
        assert at.vmm.signals == [signal.SIGTERM]
        cancelling = asyncio.create_task(running.cancel())
        await asyncio.sleep(0)
        at.vmm.gone.set()
        await cancelling
        assert running.operation.state is OperationState.CANCELLED
        assert await at.state() is VmState.STOPPED
        assert start.starts == 0
        assert running.operation.failure is not None
        assert "'demo' is stopped" in running.operation.failure.message
        assert running.operation.failure.remedy == "ingle vm start demo"


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
        update = UpdateVm(
            at.operations,
            at.store,
            at.fleet,
            at.files,
            {"scripted": cast("Any", disk)},
            at.network,
            HostLimits(8, 2**34),
        )
        running = await update.update(OP_ID, VM.id, VmChange(name="other", disk_bytes=2**31))
        await disk.growing.wait()
        cancelling = asyncio.create_task(running.cancel())
        await asyncio.sleep(0)
        disk.go_on.set()
        await cancelling
        assert running.operation.state is OperationState.SUCCEEDED
        vm = await at.store.vm(VM.id)
        assert (vm.name, vm.disk_bytes) == ("other", 2**31)


async def test_a_vm_whose_stop_failed_is_not_taken_for_stopped_by_a_start(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPING) as at:
        start = StartVm(
            operations=at.operations, store=at.store, fleet=at.fleet, **cast("dict[str, Any]", dict.fromkeys(_UNUSED))
        )
        running = await start.start(OP_ID, VM.id)
        with pytest.raises(Conflict) as refused:
            await running.result()
        assert refused.value.reason is Reason.WRONG_STATE
        assert await at.state() is VmState.STOPPING


_UNUSED = (
    *("files", "engine", "images", "kernels", "backends", "image_directory", "vm_directory", "pipelines"),
    *("network", "limits", "defaults"),
)


async def test_a_delete_cancelled_half_way_is_completed_and_told_as_done(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        engine = KillingEngine(at.vmm)
        step = Delete(at.store, at.files, cast("Engine", engine), at.network, at.backends)
        delete = DeleteVm(at.operations, at.store, at.fleet, at.files, step)
        running = await delete.delete(OP_ID, VM.id, force=True)
        await engine.killing.wait()
        await running.cancel()
        assert running.operation.state is OperationState.SUCCEEDED
        assert not at.paths.state.exists()
        with pytest.raises(NotFound):
            await at.store.vm(VM.id)


async def test_a_vmm_is_watched_until_it_is_gone_so_that_it_is_reaped(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        step = Delete(at.store, at.files, cast("Engine", KillingEngine(at.vmm)), at.network, at.backends)
        running = await DeleteVm(at.operations, at.store, at.fleet, at.files, step).delete(OP_ID, VM.id, force=True)
        await running.result()
        assert at.vmm.closed_alive is False


async def test_a_guest_that_does_not_answer_is_renamed_all_the_same(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        limits = HostLimits(vcpus=8, memory_bytes=2**40)
        update = UpdateVm(at.operations, at.store, at.fleet, at.files, {}, at.network, limits)
        await (await update.update(OP_ID, VM.id, VmChange(name="other"))).result()
        assert (await at.store.vm(VM.id)).name == "other"


async def test_a_change_whose_disk_can_not_grow_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        before = await at.store.vm(VM.id)
        limits = HostLimits(vcpus=8, memory_bytes=2**40)
        disks = cast("Any", {"scripted": FullDisk()})
        update = UpdateVm(at.operations, at.store, at.fleet, at.files, disks, at.network, limits)
        change = VmChange(name="other", vcpus=2, disk_bytes=2 * before.disk_bytes)
        running = await update.update(OP_ID, VM.id, change)
        with pytest.raises(HostProblem):
            await running.result()
        assert await at.store.vm(VM.id) == before
