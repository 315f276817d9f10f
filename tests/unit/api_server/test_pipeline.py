"""What the pipeline promises, against the real journal."""

import asyncio
import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ingle.api_server import pipeline
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.model.caller import ROOT, Caller
from ingle.api_server.model.operation import Operation, OperationKind, OperationState, Stage
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.operations.runner import Progress
from ingle.api_server.ports.store.journal import JournalEntry
from unit.api_server.vmms import StillClock

_VM = Resource(ResourceKind.VM, "0123456789ab")


@dataclass
class World:
    """What steps leave behind, and the order things happened in."""

    op_id: str = "op-000000000001"
    resource: Resource = _VM
    log: list[str] = field(default_factory=list)


class Plain:
    """Acquires nothing."""

    text = "…"

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name = name
        self.error = error

    async def run(self, target: World) -> None:
        target.log.append(f"run {self.name}")
        if self.error:
            raise self.error


class Acquiring(Plain):
    """Gives back what it acquired."""

    undo_error: Exception | None = None

    async def undo(self, target: World) -> None:
        target.log.append(f"undo {self.name}")
        if self.undo_error:
            raise self.undo_error


class Hanging(Acquiring):
    """Waits until it is cancelled."""

    async def run(self, target: World) -> None:
        await super().run(target)
        await asyncio.Event().wait()


class SlowUndo(Acquiring):
    """Takes a few turns of the loop to undo."""

    async def undo(self, target: World) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        await super().undo(target)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        yield store


def silent(name: str, text: str) -> tuple[Stage, ...]:
    return ()


async def run(steps: list[Plain], world: World, store: SqliteStore) -> None:
    await pipeline.run(steps, world, store.journal, silent)


async def test_happy_path_runs_in_order_and_never_undoes(store: SqliteStore) -> None:
    world = World()
    await run([Acquiring("a"), Plain("b"), Acquiring("c")], world, store)
    assert world.log == ["run a", "run b", "run c"]
    assert await store.journal.open_entries() == []


async def test_failing_step_is_undone_too_then_the_others_in_reverse_order(store: SqliteStore) -> None:
    world = World()
    with pytest.raises(RuntimeError, match="boom"):
        await run([Acquiring("a"), Acquiring("b"), Acquiring("c", RuntimeError("boom")), Acquiring("d")], world, store)
    assert world.log == ["run a", "run b", "run c", "undo c", "undo b", "undo a"]
    assert await store.journal.open_entries() == []


async def test_steps_without_undo_are_skipped(store: SqliteStore) -> None:
    world = World()
    with pytest.raises(RuntimeError):
        await run([Acquiring("a"), Plain("b"), Plain("c", RuntimeError("boom"))], world, store)
    assert world.log == ["run a", "run b", "run c", "undo a"]


async def test_a_step_that_is_not_needed_when_it_is_its_turn_is_neither_told_of_nor_undone(store: SqliteStore) -> None:
    class Needed(Acquiring):
        def needed(self, target: World) -> bool:
            return "run b" not in target.log

    world, told = World(), []

    def announce(name: str, text: str) -> tuple[Stage, ...]:
        told.append(name)
        return ()

    steps = [Needed("a"), Acquiring("b"), Needed("c"), Acquiring("d", RuntimeError("boom"))]
    with pytest.raises(RuntimeError):
        await pipeline.run(steps, world, store.journal, announce)
    assert world.log == ["run a", "run b", "run d", "undo d", "undo b", "undo a"]
    assert told == ["a", "b", "d"]


async def test_failing_undos_never_stop_the_others_nor_hide_the_root_cause(store: SqliteStore) -> None:
    world = World()
    first, second = Acquiring("a"), Acquiring("b")
    first.undo_error, second.undo_error = OSError("a stuck"), OSError("b stuck")
    with pytest.raises(BaseExceptionGroup) as raised:
        await run([first, second, Acquiring("c", RuntimeError("boom"))], world, store)
    assert [str(error) for error in raised.value.exceptions] == ["boom", "b stuck", "a stuck"]
    assert str(pipeline.root_cause(raised.value)) == "boom"
    assert world.log[-3:] == ["undo c", "undo b", "undo a"]


async def test_what_could_not_be_undone_stays_in_the_journal(store: SqliteStore) -> None:
    world, stuck = World(), Acquiring("stuck")
    stuck.undo_error = OSError("no")
    with pytest.raises(BaseExceptionGroup):
        await run([Acquiring("a"), stuck, Plain("b", RuntimeError("boom"))], world, store)
    assert await store.journal.open_entries() == [JournalEntry(world.op_id, world.resource, "stuck")]


async def test_intent_is_in_the_journal_before_the_step_acts(store: SqliteStore) -> None:
    seen: list[list[str]] = []

    class Looking(Acquiring):
        async def run(self, target: World) -> None:
            seen.append([entry.step for entry in await store.journal.open_entries()])

    await run([Looking("a"), Looking("b")], World(), store)
    assert seen == [["a"], ["a", "b"]]


async def test_cancellation_in_the_middle_of_a_step_undoes_and_stays_a_cancellation(store: SqliteStore) -> None:
    world = World()
    task = asyncio.create_task(run([Acquiring("a"), Hanging("b")], world, store))
    while "run b" not in world.log:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.log == ["run a", "run b", "undo b", "undo a"]
    assert await store.journal.open_entries() == []


async def test_undo_can_not_be_cancelled(store: SqliteStore) -> None:
    world = World()
    task = asyncio.create_task(run([SlowUndo("a"), SlowUndo("b"), Hanging("c")], world, store))
    while "run c" not in world.log:
        await asyncio.sleep(0)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.log[-3:] == ["undo c", "undo b", "undo a"]
    assert await store.journal.open_entries() == []


async def test_every_step_is_announced_before_it_runs(store: SqliteStore) -> None:
    world = World()

    def announce(name: str, text: str) -> tuple[Stage, ...]:
        world.log.append(f"announce {name}")
        return ()

    await pipeline.run([Plain("a"), Plain("b")], world, store.journal, announce)
    assert world.log == ["announce a", "run a", "announce b", "run b"]


async def test_a_cancellation_that_comes_while_the_journal_is_closed_comes_too_late(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, closing, own = World(), asyncio.Event(), store.journal.close

    async def close(op_id: str, resource: Resource) -> None:
        closing.set()
        await asyncio.sleep(0)
        await own(op_id, resource)

    monkeypatch.setattr(store.journal, "close", close)
    task = asyncio.create_task(run([Acquiring("a")], world, store))
    await closing.wait()
    task.cancel()
    await task
    assert world.log == ["run a"]
    assert await store.journal.kept(world.op_id) == [world.resource]


async def test_who_is_killed_leaves_the_stages_before_the_one_that_was_under_way(store: SqliteStore) -> None:
    world, clock = World(), StillClock()
    operation = Operation(world.op_id, OperationKind.CREATE_VM, OperationState.RUNNING, clock.now())
    await store.operations.save(operation)
    seen: list[list[str]] = []

    class Looking(Acquiring):
        async def run(self, target: World) -> None:
            seen.append([stage.name for stage in (await store.operations.get(world.op_id, Caller(ROOT))).stages])

    steps = [Looking("a"), Plain("b"), Looking("c")]
    await pipeline.run(steps, world, store.journal, Progress(operation, clock).stage)
    assert seen == [[], ["a", "b"]]


class Starved(Acquiring):
    """Gives it back once the host has descriptors again."""

    def __init__(self, name: str, failures: int) -> None:
        super().__init__(name)
        self.failures = failures

    async def undo(self, target: World) -> None:
        await super().undo(target)
        self.failures -= 1
        if self.failures >= 0:
            raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(("failures", "tries", "left"), [(0, 1, []), (2, 3, []), (9, 3, ["starved"])])
async def test_an_undo_for_which_the_host_has_too_little_is_tried_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, failures: int, tries: int, left: list[str]
) -> None:
    monkeypatch.setattr(pipeline, "_RETRY_SECONDS", (0.0, 0.0))
    world = World()
    steps = [Starved("starved", failures), Plain("failing", ValueError("no"))]
    with pytest.raises((ValueError, BaseExceptionGroup)):
        await pipeline.run(steps, world, store.journal, lambda *_: ())
    assert world.log == ["run starved", "run failing", *["undo starved"] * tries]
    assert [entry.step for entry in await store.journal.open_entries()] == left


async def test_an_undo_that_fails_for_another_reason_is_not_tried_again(store: SqliteStore) -> None:
    world, step = World(), Acquiring("broken")
    step.undo_error = OSError(errno.EACCES, "Permission denied")
    with pytest.raises(BaseExceptionGroup):
        await pipeline.run([step, Plain("failing", ValueError("no"))], world, store.journal, lambda *_: ())
    assert world.log.count("undo broken") == 1
