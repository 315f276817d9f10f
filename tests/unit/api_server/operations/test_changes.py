"""A change of a VM is whole, whenever the server is killed in it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiosqlite
import pytest

from ingle.api_server.adapters.sqlite.database import Database
from ingle.api_server.model.errors import Conflict, HostProblem, InvalidArgument, Reason, ToolFailed
from ingle.api_server.model.operation import OperationState
from ingle.api_server.model.rates import DiskRates
from ingle.api_server.model.spec import VmChange
from ingle.api_server.model.vm import Acceleration, LiveVmm, Vm, VmState
from ingle.api_server.operations.update_vm import UpdateVm
from ingle.api_server.ports.network import Link
from unit.api_server.recovering import recovery
from unit.api_server.vmms import NOW, VM, ScriptedVmm, Shelf, World, mine, world, world_again

OP_ID = "op-0123456789ab"
SHARED = replace(VM, id="ba9876543210", name="shared", settings=replace(VM.settings, network="backend", nat=False))
GROWN = VM.settings.disk_bytes * 2
LARGE = VmChange(name="other", vcpus=2, disk_bytes=GROWN)
OPEN = VmChange(name="other", nat=True)


class Adopting:
    """An engine that finds every VMM alive."""

    async def adopt(self, *_: object) -> ScriptedVmm:
        return ScriptedVmm()

    async def kill_all(self, *_: object) -> None:
        """There are none to be killed."""


class Sheets(Shelf):
    """Disks that are as large as their files."""

    async def grow(self, directory: Path, size_bytes: int) -> None:
        self._may_fail()
        os.truncate(self.disk_path(directory), size_bytes)


def updating(at: World) -> UpdateVm:
    at.shelf.__class__ = Sheets
    return at.updating()


@asynccontextmanager
async def two_vms(root: Path) -> AsyncIterator[World]:
    """VM is stopped and has a disk, SHARED runs in a shared network."""
    async with world(root, VmState.STOPPED) as at:
        disk = at.shelf.disk_path(at.paths.state)
        disk.touch()
        os.truncate(disk, VM.settings.disk_bytes)
        await at.store.vms.insert(SHARED, bytes(32))
        await at.store.vms.move(SHARED.id, VmState.STARTING)
        live = LiveVmm(2**22 - 1, 1, Acceleration.TCG, NOW)
        link = Link("tap", "02:00:00:00:00:02", "10.0.0.2", 24, "10.0.0.1")
        await at.store.vms.move(SHARED.id, VmState.RUNNING, vmm=live, link=link)
        yield at


def killed_at(root: Path, vm_id: str, change: VmChange, instant: int) -> bool:
    """Have a server killed at that instant of a change, just before or just after a transaction; False when the change
    is over by then."""
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(_change_and_die(root, vm_id, change, instant))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


async def _change_and_die(root: Path, vm_id: str, change: VmChange, instant: int) -> None:
    left = instant

    def pass_by() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    class Doomed(Database):
        @asynccontextmanager
        async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
            pass_by()
            async with Database.transaction(self) as db:
                yield db
            pass_by()

    async with world_again(root) as at:
        at.store._database.__class__ = Doomed
        await (await updating(at).update(OP_ID, mine(vm_id), change)).result()


@pytest.mark.parametrize(("before", "change"), [(VM, LARGE), (SHARED, OPEN)], ids=["stopped", "running"])
async def test_killed_at_any_instant_of_a_change_it_is_done_or_undone_as_a_whole_and_told_as_that(
    tmp_path: Path, before: Vm, change: VmChange
) -> None:
    seen: list[OperationState] = []
    for instant in range(100):
        root = tmp_path / str(instant)
        root.mkdir()
        async with two_vms(root):
            """Made, and left by its server."""
        if not await asyncio.to_thread(killed_at, root, before.id, change, instant):
            break
        async with world_again(root) as at:
            update = updating(at)
            await recovery(at, root, Adopting(), *update.steps).run()
            after = await at.store.vms.get(before.id)
            done = after.name == "other"
            whole = change.applied(before) if done else before
            assert (after.name, after.settings) == (whole.name, whole.settings)
            assert (
                at.shelf.disk_path(at.paths.state).stat().st_size == (await at.store.vms.get(VM.id)).settings.disk_bytes
            )
            shared = await at.store.vms.get(SHARED.id)
            assert [vm.settings.nat for vm in at.network.connected.values()] == [shared.settings.nat]
            assert await at.store.journal.open_entries() == []
            assert await at.store.vms.changed(before.id) is None
            for operation in await at.store.operations.latest(1):
                assert operation.state is (OperationState.SUCCEEDED if done else OperationState.FAILED)
                assert await at.store.journal.kept(operation.id) == []
                seen.append(operation.state)
    assert {OperationState.SUCCEEDED, OperationState.FAILED} <= set(seen)


async def test_a_change_that_the_next_server_can_not_go_on_with_is_undone(tmp_path: Path) -> None:
    failed = 0
    for instant in range(100):
        root = tmp_path / str(instant)
        root.mkdir()
        async with two_vms(root):
            """Made, and left by its server."""
        if not await asyncio.to_thread(killed_at, root, VM.id, LARGE, instant):
            break
        async with world_again(root) as at:
            update = updating(at)
            at.shelf.failure = ToolFailed(Reason.DISK_FULL, "no space left")
            await recovery(at, root, Adopting(), *update.steps).run()
            after = await at.store.vms.get(VM.id)
            assert (after.name, after.settings.vcpus) in {(VM.name, 1), ("other", 2)}
            assert await at.store.journal.open_entries() == []
            if after.name == VM.name:
                assert after.settings == VM.settings
                failed += 1
    assert failed > 2


async def test_a_change_that_fails_gives_its_vm_back_its_name_which_nobody_could_take(tmp_path: Path) -> None:
    async with two_vms(tmp_path) as at:
        update = updating(at)

        class Slow(Sheets):
            growing = asyncio.Event()
            fail = asyncio.Event()

            async def grow(self, directory: Path, size_bytes: int) -> None:
                self.growing.set()
                await self.fail.wait()
                raise HostProblem(Reason.DISK_FULL, "no space left")

        at.shelf.__class__ = Slow
        changing = await update.update(OP_ID, mine(VM.id), LARGE)
        await Slow.growing.wait()
        third = replace(VM, id="1" * 12)
        with pytest.raises(Conflict) as refused:
            await at.store.vms.insert(third, bytes(32))
        assert refused.value.reason is Reason.NAME_TAKEN
        with pytest.raises(Conflict):
            await at.store.vms.change(replace(await at.store.vms.get(SHARED.id), name=VM.name))
        Slow.fail.set()
        with pytest.raises(HostProblem):
            await changing.result()
        assert (await at.store.vms.exact(mine(VM.name))).settings == VM.settings
        assert await at.store.journal.open_entries() == []
        await at.store.vms.insert(replace(third, name=LARGE.name or ""), bytes(32))


async def test_nat_that_can_not_be_switched_is_switched_back(tmp_path: Path) -> None:
    async with two_vms(tmp_path) as at:
        slot = (await at.store.vms.get(SHARED.id)).slot
        assert slot is not None
        refused = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")

        async def connect_half(vm: Vm) -> None:
            at.network.connected[slot] = vm
            if vm.settings.nat:
                raise refused

        at.network.connect = connect_half  # type: ignore[assignment,method-assign]
        with pytest.raises(HostProblem):
            await (await updating(at).update(OP_ID, mine(SHARED.id), OPEN)).result()
        assert at.network.connected[slot].settings.nat is False
        assert (await at.store.vms.get(SHARED.id)).name == SHARED.name
        assert await at.store.journal.open_entries() == []


async def test_of_two_who_have_seen_the_same_the_second_changes_nothing(tmp_path: Path) -> None:
    async with two_vms(tmp_path) as at:
        update, seen = updating(at), (await at.store.vms.get(VM.id)).generation
        change = VmChange(vcpus=2, expected_generation=seen)
        changed = await (await update.update(OP_ID, mine(VM.id), change)).result()
        assert changed.generation == (await at.store.vms.get(VM.id)).generation == seen + 1
        with pytest.raises(Conflict) as refused:
            await update.update("op-1", mine(VM.id), VmChange(vcpus=1, expected_generation=seen))
        assert refused.value.reason is Reason.CHANGED_MEANWHILE
        assert (await at.store.vms.get(VM.id)).settings.vcpus == 2


async def test_of_two_at_once_who_have_seen_the_same_one_changes_something(tmp_path: Path) -> None:
    async with two_vms(tmp_path) as at:
        update = updating(at)
        changes = [
            await update.update(f"op-{vcpus}", mine(VM.id), VmChange(vcpus=vcpus, expected_generation=1))
            for vcpus in (1, 2)
        ]
        ends = await asyncio.gather(*(change.result() for change in changes), return_exceptions=True)
        assert [isinstance(end, Vm) for end in ends] == [True, False]
        assert isinstance(ends[1], Conflict)
        assert ends[1].reason is Reason.CHANGED_MEANWHILE


async def test_a_change_that_was_undone_is_taken_for_no_state_that_anybody_saw(tmp_path: Path) -> None:
    async with two_vms(tmp_path) as at:
        at.shelf.failure = ToolFailed(Reason.DISK_FULL, "no space left")
        with pytest.raises(ToolFailed):
            await (await updating(at).update(OP_ID, mine(VM.id), LARGE)).result()
        after = await at.store.vms.get(VM.id)
        assert (after.name, after.settings) == (VM.name, VM.settings)
        assert after.generation > VM.generation + 1


@asynccontextmanager
async def limited(root: Path, vmm: ScriptedVmm) -> AsyncIterator[World]:
    """SHARED runs in that VMM, and has limits."""
    async with two_vms(root) as at:
        at.fleet.attach(await at.store.vms.get(SHARED.id), vmm)
        given = VmChange(disk_iops=500, disk_bytes_per_second=1 << 20, net_bytes_per_second=1 << 20)
        await (await updating(at).update(OP_ID, mine(SHARED.id), given)).result()
        yield at


async def test_limits_of_a_vm_that_runs_change_at_once(tmp_path: Path) -> None:
    vmm = ScriptedVmm()
    async with limited(tmp_path, vmm) as at:
        assert vmm.disk_rates == DiskRates(500, 1 << 20)
        assert [vm.settings.net_bytes_per_second for vm in at.network.connected.values()] == [1 << 20]
        off = VmChange(disk_iops=0, net_bytes_per_second=0)
        changed = await (await updating(at).update("op-ba9876543210", mine(SHARED.id), off)).result()
        assert changed.settings.disk_rates == vmm.disk_rates == DiskRates(0, 1 << 20)
        assert [vm.settings.net_bytes_per_second for vm in at.network.connected.values()] == [0]


async def test_a_vmm_that_can_not_be_limited_leaves_all_as_it_was(tmp_path: Path) -> None:
    class Refusing(ScriptedVmm):
        async def limit_disk(self, rates: DiskRates) -> None:
            await super().limit_disk(rates)
            if rates.iops == 200:
                raise ToolFailed(Reason.VMM_FAILED, "it won't")

    vmm = Refusing()
    async with limited(tmp_path, vmm) as at:
        before = (await at.store.vms.get(SHARED.id)).settings
        other = VmChange(disk_iops=200, net_bytes_per_second=2 << 20)
        with pytest.raises(ToolFailed, match="it won't"):
            await (await updating(at).update("op-ba9876543210", mine(SHARED.id), other)).result()
        assert (await at.store.vms.get(SHARED.id)).settings == before
        assert vmm.disk_rates == before.disk_rates
        assert [vm.settings for vm in at.network.connected.values()] == [before]
        assert await at.store.journal.open_entries() == []


async def test_a_server_that_adopts_a_vmm_limits_it_as_the_store_says(tmp_path: Path) -> None:
    async with limited(tmp_path, ScriptedVmm()):
        """Made, and left by its server."""
    found = ScriptedVmm()

    class AdoptingThat(Adopting):
        async def adopt(self, *_: object) -> ScriptedVmm:
            return found

    async with world_again(tmp_path) as at:
        await recovery(at, tmp_path, AdoptingThat()).run()
    assert found.disk_rates == DiskRates(500, 1 << 20)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (VmChange(disk_iops=1), "disk_iops 1 a second: 100 at least is allowed"),
        (VmChange(disk_bytes_per_second=1000), "disk_bytes_per_second 1000 bytes a second: 1 MiB at least is allowed"),
        (VmChange(net_bytes_per_second=1000), "net_bytes_per_second 1000 bytes a second: 128 KiB at least is allowed"),
        (VmChange(disk_bytes_per_second=2**60), "is the most"),
        (VmChange(net_bytes_per_second=1 << 20), "a network of a VM's own can't be limited"),
    ],
)
async def test_a_limit_that_no_vm_can_live_with_or_nothing_can_keep_is_refused(
    tmp_path: Path, change: VmChange, told: str
) -> None:
    async with two_vms(tmp_path) as at:
        with pytest.raises(InvalidArgument, match=told) as caught:
            await updating(at).update(OP_ID, mine(VM.id), change)
        assert "none" in caught.value.remedy
        assert (await at.store.vms.get(VM.id)).settings == VM.settings
