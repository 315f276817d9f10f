"""Operations have a record that tells the truth, whatever cancels them, whenever."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.adapters.sqlite import store as sqlite_store
from ingle.api_server.model.operation import Operation, OperationKind, OperationState
from ingle.api_server.operations.runner import Operations, Progress

OP_ID = "op-0123456789ab"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        yield store


class Recording(SqliteStore):
    """Tells when a record is committed, a turn of the loop before whoever recorded it hears so."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.recorded = asyncio.Event()

    async def save_operation(self, operation: Operation) -> None:
        await super().save_operation(operation)
        self.recorded.set()
        await asyncio.sleep(0)


async def at_once(progress: Progress) -> None:
    """Nothing is done."""


async def forever(progress: Progress) -> None:
    await asyncio.Event().wait()


async def test_an_operation_cancelled_before_its_first_step_ends_and_says_so(store: SqliteStore) -> None:
    operations = Operations(store)
    running = await operations.begin(OP_ID, OperationKind.START_VM, forever)
    await running.cancel()
    assert (await operations.get(OP_ID)).state is OperationState.CANCELLED
    assert (await store.operation(OP_ID)).state is OperationState.CANCELLED
    await operations.close()


async def test_a_caller_that_leaves_while_its_operation_is_recorded_leaves_no_record_of_a_running_one(
    tmp_path: Path,
) -> None:
    async with Recording(tmp_path / "ingle.db") as store:
        operations = Operations(store)
        beginning = asyncio.create_task(operations.begin(OP_ID, OperationKind.START_VM, forever))
        await store.recorded.wait()
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert (await store.operation(OP_ID)).state is OperationState.CANCELLED


async def test_of_operations_that_have_ended_there_are_no_more_than_so_many_however_long_a_server_runs(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "_KEPT_OPERATIONS", 2)
    operations = Operations(store)
    endless = await operations.begin("op-endless", OperationKind.STOP_VM, forever)
    for number in range(8):
        await (await operations.begin(f"op-{number:02}", OperationKind.RESTART_VM, at_once)).result()
    *kept, last = [operation.id for operation in await store.operations(100)]
    assert last == "op-endless"
    assert kept[:2] == ["op-07", "op-06"]
    assert len(kept) <= 4
    await endless.cancel()
    assert "op-endless" in [operation.id for operation in await store.operations(100)]


async def test_a_call_that_is_ended_in_the_instant_its_operation_succeeds_is_not_told_that_it_was_undone(
    store: SqliteStore,
) -> None:
    operations = Operations(store)
    running = await operations.begin(OP_ID, OperationKind.CREATE_VM, at_once)
    call = asyncio.create_task(running.result())
    await asyncio.sleep(0)  # until it waits
    (work,) = (task for task in asyncio.all_tasks() if task.get_name() == OP_ID)
    work.add_done_callback(lambda _: call.cancel())
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await store.operation(OP_ID)).state is OperationState.SUCCEEDED
