"""Operations have a record that tells the truth, whatever cancels them, whenever."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.adapters.sqlite import operations as stored_operations
from ingle.api_server.adapters.sqlite.database import Database
from ingle.api_server.adapters.sqlite.operations import SqliteOperations
from ingle.api_server.model.caller import ROOT, Caller
from ingle.api_server.model.operation import Operation, OperationKind, OperationState
from ingle.api_server.model.resource import ResourceKind
from ingle.api_server.operations.runner import Operations, Progress
from unit.api_server.vmms import ME, NOW, StillClock

OP_ID = "op-0123456789ab"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        yield store


class Recording(SqliteOperations):
    """Tells when a record is committed, a turn of the loop before whoever recorded it hears so."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.recorded = asyncio.Event()

    async def save(self, operation: Operation) -> None:
        await super().save(operation)
        self.recorded.set()
        await asyncio.sleep(0)


async def at_once(progress: Progress) -> None:
    """Nothing is done."""


async def forever(progress: Progress) -> None:
    await asyncio.Event().wait()


async def test_an_operation_cancelled_before_its_first_step_ends_and_says_so(store: SqliteStore) -> None:
    operations = Operations(store.operations, StillClock())
    running = await operations.begin(OP_ID, ROOT, OperationKind.START_VM, forever)
    await running.cancel()
    assert (await operations.get(OP_ID, ME)).state is OperationState.CANCELLED
    assert (await store.operations.get(OP_ID, ME)).state is OperationState.CANCELLED
    await operations.close()


async def test_a_caller_that_leaves_while_its_operation_is_recorded_leaves_no_record_of_a_running_one(
    tmp_path: Path,
) -> None:
    async with Database(tmp_path / "ingle.db") as database:
        store = Recording(database)
        operations = Operations(store, StillClock())
        beginning = asyncio.create_task(operations.begin(OP_ID, ROOT, OperationKind.START_VM, forever))
        await store.recorded.wait()
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert (await store.get(OP_ID, ME)).state is OperationState.CANCELLED


async def test_of_operations_that_have_ended_there_are_no_more_than_so_many_however_long_a_server_runs(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_operations, "_KEPT", 2)
    operations = Operations(store.operations, StillClock())
    endless = await operations.begin("op-endless", ROOT, OperationKind.STOP_VM, forever)
    for number in range(8):
        await (await operations.begin(f"op-{number:02}", ROOT, OperationKind.RESTART_VM, at_once)).result()
    *kept, last = [operation.id for operation in await store.operations.latest(100)]
    assert last == "op-endless"
    assert kept[:2] == ["op-07", "op-06"]
    assert len(kept) <= 4
    await endless.cancel()
    assert "op-endless" in [operation.id for operation in await store.operations.latest(100)]


async def test_operations_of_others_make_nobodys_be_forgotten(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_operations, "_KEPT", 2)
    operations = Operations(store.operations, StillClock())
    await (await operations.begin("op-hers", 1000, OperationKind.STOP_VM, at_once)).result()
    for number in range(8):
        await (await operations.begin(f"op-{number}", 1001, OperationKind.STOP_VM, at_once)).result()
    assert (await operations.get("op-hers", Caller(1000))).state is OperationState.SUCCEEDED
    assert [operation.id for operation in await operations.list(Caller(1001))] == ["op-7", "op-6"]


async def test_a_call_that_is_ended_in_the_instant_its_operation_succeeds_is_not_told_that_it_was_undone(
    store: SqliteStore,
) -> None:
    operations = Operations(store.operations, StillClock())
    running = await operations.begin(OP_ID, ROOT, OperationKind.CREATE_VM, at_once)
    call = asyncio.create_task(running.result())
    await asyncio.sleep(0)  # until it waits
    (work,) = (task for task in asyncio.all_tasks() if task.get_name() == OP_ID)
    work.add_done_callback(lambda _: call.cancel())
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await store.operations.get(OP_ID, ME)).state is OperationState.SUCCEEDED


async def test_the_stages_of_an_operation_and_its_record_leave_no_time_untold(store: SqliteStore) -> None:
    clock = StillClock()
    operations = Operations(store.operations, clock)

    async def two_stages(progress: Progress) -> None:
        clock.seconds = 1
        progress.stage("one", "…")
        clock.seconds = 3
        progress.stage("two", "…")
        clock.seconds = 7

    await (await operations.begin(OP_ID, ROOT, OperationKind.START_VM, two_stages)).result()
    told = await store.operations.get(OP_ID, ME)
    one, two = told.stages
    moments = (told.created_at, one.started_at, one.finished_at, two.started_at, two.finished_at, told.finished_at)
    assert moments == tuple(NOW + timedelta(seconds=seconds) for seconds in (0, 1, 3, 3, 7, 7))


def test_every_kind_of_operation_is_about_one_kind_of_resource() -> None:
    made_on_the_way = {ResourceKind.WARM_MEMORY}  # no operation is about one: it is of an image
    assert {kind.about for kind in OperationKind} == set(ResourceKind) - made_on_the_way
