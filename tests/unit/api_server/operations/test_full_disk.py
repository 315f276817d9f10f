"""On a disk without a free byte what makes room goes on."""

import asyncio
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.model.errors import HostProblem, NotFound
from ingle.api_server.model.operation import Operation, OperationKind, OperationState
from ingle.api_server.model.spec import VmChange
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.ports.engine import VmPaths
from ingle.api_server.steps.delete import Delete
from small_disk import fill, make_room, small_disk
from unit.api_server.vmms import ME, VM, World, mine, world

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")

OP_ID = "op-0123456789ab"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "32m") as directory:
        yield directory


async def _nothing_more_can_be_written(at: World, disk: Path) -> None:
    """Whatever was kept back is used up."""
    record = Operation("op-filler", OperationKind.START_VM, OperationState.RUNNING, datetime.now(UTC), "x" * 100_000)
    refusals = 0
    while refusals < 2:  # after the first one there is the reserve
        fill(disk)
        try:
            await at.store.operations.save(record)
        except HostProblem:
            refusals += 1


def _ending(at: World) -> StopVm:
    at.vmm.obeys = True
    return at.stopping


async def test_a_vm_is_stopped_and_that_is_recorded(disk: Path) -> None:
    async with world(disk, VmState.RUNNING) as at:
        fill(disk)
        await (await _ending(at).stop(OP_ID, mine(VM.id), 0.1)).result()
        assert await at.state() is VmState.STOPPED
        assert (await at.store.operations.get(OP_ID, ME)).state is OperationState.SUCCEEDED


async def test_a_kill_needs_no_space_at_all_and_is_recorded_when_there_is_some(disk: Path) -> None:
    async with world(disk, VmState.RUNNING) as at:
        await _nothing_more_can_be_written(at, disk)
        killed = await (await _ending(at).kill(OP_ID, mine(VM.id), signal.SIGKILL)).result()
        assert at.vmm.signals == [signal.SIGKILL]
        assert killed.state is VmState.STOPPED
        make_room(disk)
        async with asyncio.timeout(30):
            while await at.state() is not VmState.STOPPED:
                await asyncio.sleep(0.05)


async def test_a_stop_needs_no_space_at_all(disk: Path) -> None:
    async with world(disk, VmState.RUNNING) as at:
        await _nothing_more_can_be_written(at, disk)
        assert (await (await _ending(at).stop(OP_ID, mine(VM.id), 0.1)).result()).state is VmState.STOPPED


@pytest.mark.parametrize("used_up", [False, True])
async def test_a_deletion_makes_the_room_that_it_needs(disk: Path, used_up: bool) -> None:
    class Engine:
        async def kill_all(self, paths: VmPaths) -> None:
            """There is none."""

    async with world(disk, VmState.STOPPED) as at:
        (at.paths.state / "disk.qcow2").write_bytes(bytes(2**20))
        if used_up:
            await _nothing_more_can_be_written(at, disk)
        fill(disk)
        step = Delete(at.store.vms, at.files, Engine(), at.network, at.backends)  # type: ignore[arg-type]
        delete = DeleteVm(at.operations, at.store.vms, at.store.journal, at.fleet, at.files, step)
        await (await delete.delete(OP_ID, mine(VM.id), force=False)).result()
        assert not at.paths.state.exists()
        with pytest.raises(NotFound):
            await at.store.vms.get(VM.id)
        assert await at.store.journal.open_entries() == []


async def test_the_reserve_is_made_again_when_there_is_room(disk: Path) -> None:
    async with SqliteStore(disk / "ingle.db") as store:
        reserve = disk / "reserve"
        kept = reserve.stat().st_blocks
        assert kept > 0
        fill(disk)
        record = Operation(OP_ID, OperationKind.START_VM, OperationState.RUNNING, datetime.now(UTC))
        await store.operations.save(record)
        assert not reserve.exists()
        make_room(disk)
        await store.operations.save(record)
        assert reserve.stat().st_blocks == kept


async def test_a_store_opens_on_a_full_disk(disk: Path) -> None:
    async with SqliteStore(disk / "ingle.db"):
        pass
    fill(disk)
    async with SqliteStore(disk / "ingle.db") as store:
        await store.operations.save(
            Operation(OP_ID, OperationKind.DELETE_VM, OperationState.RUNNING, datetime.now(UTC))
        )


async def test_what_was_kept_back_is_the_databases_before_anybody_else_has_it(disk: Path) -> None:
    def record(number: int, size: int) -> Operation:
        now = datetime.now(UTC)
        return Operation(f"op-{number}", OperationKind.DELETE_VM, OperationState.RUNNING, now, "x" * size)

    async with SqliteStore(disk / "ingle.db") as store:
        for number in range(25):
            await store.operations.save(record(number, 100_000))
        for number in range(100):
            fill(disk)
            await store.operations.save(record(number, 100))


async def test_changes_that_free_nothing_leave_the_room_to_those_that_do(disk: Path) -> None:
    async with world(disk, VmState.RUNNING) as at:
        change = VmChange(labels={f"{key}": "x" * 50 for key in range(30)})
        for number in range(100):
            fill(disk)
            with pytest.raises(HostProblem, match="what stops, deletes or prunes still can be done"):
                await (await at.updating().update(f"op-{number}", mine(VM.id), change)).result()
        fill(disk)
        await (await _ending(at).stop(OP_ID, mine(VM.id), 0.1)).result()
        assert await at.state() is VmState.STOPPED, "and that is recorded"
