"""Events: written with what they tell, once, in order, and told to whoever watches at its own pace."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingle.api_server.adapters.clock import HostClock
from ingle.api_server.adapters.sqlite import SqliteStore, events
from ingle.api_server.model.errors import CursorExpired, HostProblem, Reason
from ingle.api_server.model.event import Event, EventKind, Happening, StopCause
from ingle.api_server.model.resource import ResourceKind
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.watch_events import Position, WatchEvents, Wish, server_started
from ingle.api_server.steps.mark_starting import MarkStarting
from unit.api_server.vmms import IMAGE, KERNEL, ME, VM

_TOKEN = bytes(32)
_ALL = Wish(None, after=0, follow=False)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        await store.images.add(IMAGE, "base", ME, "op-1", pulled=True)
        await store.kernels.add(KERNEL, "mine", ME, "op-2")
        yield store


async def told(store: SqliteStore, wish: Wish = _ALL) -> list[Event]:
    """What somebody is told who does not wait for more."""
    async with aclosing(WatchEvents(store.events, HostClock()).watch(replace(wish, follow=False))) as positions:
        return [position.event async for position in positions if position.event is not None]


async def kinds(store: SqliteStore, wish: Wish = _ALL) -> list[str]:
    return [event.what.kind.name for event in await told(store, wish)]


async def test_all_of_a_life_is_told_in_its_order_with_who_did_it(store: SqliteStore) -> None:
    labelled = replace(VM, settings=replace(VM.settings, labels={"team": "web"}))
    await store.vms.insert(labelled, _TOKEN)
    await store.vms.move(VM.id, VmState.STARTING, op_id="op-3")
    await store.vms.move(VM.id, VmState.RUNNING, op_id="op-3")
    await store.vms.change(replace(labelled, name="other", settings=replace(labelled.settings, nat=False)), "op-4")
    await store.vms.move(VM.id, VmState.STOPPING)
    await store.vms.move(VM.id, VmState.STOPPED, cause=StopCause.ASKED, op_id="op-5")
    await store.vms.delete(VM.id, "op-6")
    await store.images.delete(IMAGE.id, ME, "op-7")
    whats = [event.what for event in await told(store)]
    assert [(what.kind, what.name, what.op_id) for what in whats] == [
        (EventKind.IMAGE_PULLED, "base", "op-1"),
        (EventKind.KERNEL_ADDED, "mine", "op-2"),
        (EventKind.VM_CREATED, "demo", "op-3"),
        (EventKind.VM_STARTED, "demo", "op-3"),
        (EventKind.VM_READY, "demo", "op-3"),
        (EventKind.VM_RENAMED, "other", "op-4"),
        (EventKind.VM_UPDATED, "other", "op-4"),
        (EventKind.VM_STOPPED, "other", "op-5"),
        (EventKind.VM_DELETED, "other", "op-6"),
        (EventKind.IMAGE_REMOVED, "base", "op-7"),
    ]
    assert whats[5].attributes == {"old_name": "demo"}
    assert whats[6].attributes == {"changed": "nat"}
    assert whats[7].cause is StopCause.ASKED
    assert all(what.labels == {"team": "web"} for what in whats[2:9])
    cursors = [event.cursor for event in await told(store)]
    assert cursors == sorted(set(cursors))


@pytest.mark.parametrize(
    ("moves", "last"),
    [
        ([VmState.RUNNING, VmState.ERROR], ["VM_STOPPED VMM_DIED", "VM_FAILED"]),
        ([VmState.STOPPED], ["VM_STOPPED START_FAILED"]),
        ([VmState.RUNNING, VmState.STOPPED, VmState.ERROR], ["VM_STOPPED START_FAILED", "VM_FAILED"]),
        ([VmState.RUNNING, VmState.STOPPING, VmState.RUNNING], ["VM_READY"]),
    ],
)
async def test_each_end_of_a_run_says_why(store: SqliteStore, moves: list[VmState], last: list[str]) -> None:
    await store.vms.insert(VM, _TOKEN)
    await store.vms.move(VM.id, VmState.STARTING)
    for state in moves:
        cause = StopCause.START_FAILED if state is VmState.STOPPED else None
        await store.vms.move(VM.id, state, cause=cause, error="it broke" if state is VmState.ERROR else "")
    found = [event.what for event in await told(store)][-len(last) :]
    assert [f"{what.kind.name} {what.cause.name}" if what.cause else what.kind.name for what in found] == last
    assert all(what.message == "it broke" for what in found if what.kind is EventKind.VM_FAILED)


async def test_a_vm_that_was_never_made_whole_is_told_of_neither_way(store: SqliteStore) -> None:
    await store.vms.insert(VM, _TOKEN)
    await store.vms.delete(VM.id)
    await store.vms.delete(VM.id)
    assert await kinds(store) == ["IMAGE_PULLED", "KERNEL_ADDED"]


async def test_a_vm_that_runs_has_stopped_before_it_is_gone(store: SqliteStore) -> None:
    await store.vms.insert(VM, _TOKEN)
    await store.vms.move(VM.id, VmState.STARTING)
    await store.vms.move(VM.id, VmState.RUNNING)
    await store.vms.delete(VM.id)
    stopped, deleted = (await told(store))[-2:]
    assert (stopped.what.cause, deleted.what.kind) == (StopCause.KILLED, EventKind.VM_DELETED)


async def test_a_change_that_is_taken_back_is_told_both_ways(store: SqliteStore) -> None:
    await store.vms.insert(VM, _TOKEN)
    await store.vms.change(replace(VM, name="other"))
    await store.vms.restore(VM.id)
    await store.vms.restore(VM.id)  # nothing is remembered any more, and nothing changes
    names = [event.what.name for event in await told(store) if event.what.kind is EventKind.VM_RENAMED]
    assert names == ["other", "demo"]


async def test_a_full_disk_is_told_once_however_often_it_is_seen(store: SqliteStore) -> None:
    await store.vms.insert(VM, _TOKEN)
    for stalled in (False, True, True, False, False, True):
        await store.vms.tell_stall(VM.id, stalled=stalled)
    await store.vms.tell_stall("no such", stalled=True)
    assert (await kinds(store))[2:] == ["VM_DISK_FULL", "VM_DISK_ROOM", "VM_DISK_FULL"]


async def test_what_fails_is_not_told(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.vms.insert(VM, _TOKEN)
    before = await kinds(store)
    watching = asyncio.ensure_future(_next(store, Wish(None)))
    await asyncio.sleep(0.05)

    def broken(*_: object) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as breaking:
        breaking.setattr("ingle.api_server.adapters.sqlite.events._forget_old", broken)
        with pytest.raises(HostProblem):
            await store.vms.move(VM.id, VmState.STARTING)
    assert (await store.vms.get(VM.id)).state is VmState.CREATING
    assert await kinds(store) == before
    await store.vms.move(VM.id, VmState.STOPPED)
    assert (await watching).what.kind is EventKind.VM_CREATED


async def _next(store: SqliteStore, wish: Wish) -> Event:
    async with asyncio.timeout(20), aclosing(WatchEvents(store.events, HostClock()).watch(wish)) as positions:
        async for position in positions:
            if position.event is not None:
                return position.event
    raise AssertionError


async def test_who_watches_hears_what_happens_from_then_on(store: SqliteStore) -> None:
    async with aclosing(WatchEvents(store.events, HostClock()).watch(Wish(None))) as positions:
        begin = await anext(positions)
        assert begin == Position(store.events.newest())
        await store.vms.insert(VM, _TOKEN)
        await store.vms.move(VM.id, VmState.STOPPED, op_id="op-3")
        position = await anext(positions)
        assert position.event is not None
        assert (position.event.what.kind, position.event.what.op_id) == (EventKind.VM_CREATED, "op-3")
    rest = replace(_ALL, after=position.cursor)
    assert await kinds(store, rest) == []


async def test_a_cursor_goes_on_where_it_was_also_with_another_server(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        await store.images.add(IMAGE, "base", ME)
        cursor = (await told(store))[-1].cursor
    async with SqliteStore(tmp_path / "ingle.db") as store:
        await store.kernels.add(KERNEL, "mine", ME)
        assert await kinds(store, replace(_ALL, after=cursor)) == ["KERNEL_ADDED"]
        assert await kinds(store) == ["IMAGE_ADDED", "KERNEL_ADDED"]


async def test_a_watcher_that_lags_behind_all_that_is_in_memory_misses_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_IN_MEMORY", 3)
    monkeypatch.setattr(events, "_AT_ONCE", 2)
    slow = WatchEvents(store.events, HostClock()).watch(Wish(None))
    await anext(slow)
    for number in range(20):
        await store.events.record(Happening(EventKind.SERVER_STARTED, name=str(number)))
    async with asyncio.timeout(20), aclosing(slow):
        for number in range(20):
            event = (await anext(slow)).event
            assert event is not None
            assert event.what.name == str(number)


async def test_what_one_owner_does_pushes_out_nothing_of_anothers(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT", 5)
    mine, theirs = 1000, 1001
    await store.events.record(Happening(EventKind.VM_CREATED, owner=mine, name="mine"))
    for number in range(20):
        await store.events.record(Happening(EventKind.VM_CREATED, owner=theirs, name=f"theirs-{number}"))

    async def names(owner: int | None) -> list[str]:
        found = await told(store, Wish(owner, after=0, kinds=[EventKind.VM_CREATED]))
        return [event.what.name for event in found]

    assert await names(mine) == ["mine"]
    assert await names(theirs) == [f"theirs-{number}" for number in range(15, 20)]
    assert await names(None) == [f"theirs-{number}" for number in range(15, 20)]
    with pytest.raises(CursorExpired) as expired:
        await told(store, Wish(theirs, after=5))
    assert expired.value.reason is Reason.CURSOR_EXPIRED
    assert len(await told(store, Wish(theirs, after=expired.value.oldest))) == 5
    assert await told(store, Wish(mine, after=5)) == []


async def test_large_ones_are_kept_up_to_so_many_bytes(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT_BYTES", 10_000)
    for number in range(20):
        await store.events.record(
            Happening(EventKind.VM_CREATED, owner=1, name=str(number), attributes={"large": "ü" * 1000})
        )
    assert [event.what.name for event in await told(store, Wish(1, after=0, kinds=[EventKind.VM_CREATED]))] == [
        str(number) for number in range(16, 20)
    ]


async def test_old_ones_are_forgotten_of_all_owners(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.events.record(Happening(EventKind.VM_CREATED, owner=1))
    cursor = (await told(store))[0].cursor
    monkeypatch.setattr(events, "KEPT_FOR", timedelta(seconds=-1))
    await store.events.record(Happening(EventKind.VM_DELETED, owner=2))
    monkeypatch.setattr(events, "KEPT_FOR", timedelta(days=30))
    await store.events.record(Happening(EventKind.VM_READY, owner=2))
    assert await kinds(store) == ["VM_READY"]
    with pytest.raises(CursorExpired):
        await told(store, Wish(1, after=cursor))


async def test_a_cursor_of_a_database_that_was_lost_is_expired(store: SqliteStore) -> None:
    with pytest.raises(CursorExpired):
        await told(store, Wish(None, after=10**6))


async def test_times_and_filters_pick_events(store: SqliteStore) -> None:
    await store.vms.insert(replace(VM, settings=replace(VM.settings, labels={"team": "web"})), _TOKEN)
    await store.vms.move(VM.id, VmState.STARTING)
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    for wish, found in (
        (Wish(None, since=now - hour), 4),
        (Wish(None, since=now + hour), 0),
        (Wish(None, after=0, until=now - hour), 0),
        (Wish(None, after=0, until=now + hour), 4),
        (Wish(None, after=0, kinds=[EventKind.VM_STARTED, EventKind.IMAGE_PULLED]), 2),
        (Wish(None, after=0, resource_kinds=[ResourceKind.VM]), 2),
        (Wish(None, after=0, resource=VM.id), 2),
        (Wish(None, after=0, resource="base"), 1),
        (Wish(None, after=0, labels={"team": "web"}), 2),
        (Wish(None, after=0, labels={"team": None, "other": None}), 0),
        (Wish(1000, after=0), 2),
    ):
        assert len(await told(store, wish)) == found, wish


async def test_a_watch_ends_when_the_time_has_come(store: SqliteStore) -> None:
    wish = Wish(None, after=0, until=datetime.now(UTC) + timedelta(seconds=0.2))
    async with asyncio.timeout(20), aclosing(WatchEvents(store.events, HostClock()).watch(wish)) as positions:
        assert len([position async for position in positions]) == 3


async def test_who_wants_few_events_is_told_how_far_it_is(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.api_server.operations.watch_events._SAY_SO_EVENTS", 10)
    wish = Wish(None, kinds=[EventKind.VM_DELETED])
    async with aclosing(WatchEvents(store.events, HostClock()).watch(wish)) as positions:
        begin = (await anext(positions)).cursor
        for _ in range(10):
            await store.events.record(Happening(EventKind.SERVER_STARTED))
        async with asyncio.timeout(20):
            assert await anext(positions) == Position(begin + 10)


async def test_a_server_that_can_not_say_that_it_has_begun_says_why(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await server_started(store.events, "1.0", 7) == ""
    event = (await told(store))[-1]
    assert (event.what.kind, event.what.attributes) == (EventKind.SERVER_STARTED, {"version": "1.0", "pid": "7"})

    async def full(_: Happening) -> None:
        raise HostProblem(Reason.DISK_FULL, "no room")

    monkeypatch.setattr(store.events, "record", full)
    assert await server_started(store.events, "1.0", 7) == "no room"


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.model.vm import VmState
from unit.api_server.vmms import VM

async def main(where, moment):
    async with SqliteStore(Path(where)) as store:
        database = store.vms._database
        execute = database._writer.execute

        def dying(sql, *rest):
            return commit() if sql == "COMMIT" else execute(sql, *rest)

        async def commit():
            if moment == "after":
                await execute("COMMIT")
            os.kill(os.getpid(), signal.SIGKILL)

        database._writer.execute = dying
        await store.vms.move(VM.id, VmState.STARTING, op_id="op-3")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_sigkill_loses_and_invents_none(tmp_path: Path, moment: str) -> None:
    """Right before the change is committed, and right after."""
    path = tmp_path / "ingle.db"
    async with SqliteStore(path) as store:
        await store.images.add(IMAGE, "base", ME)
        await store.kernels.add(KERNEL, "mine", ME)
        await store.vms.insert(VM, _TOKEN)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", _KILLED, path, moment, env=env)
    async with asyncio.timeout(60):
        assert await server.wait() == -signal.SIGKILL
    async with SqliteStore(path) as store:
        state = (await store.vms.get(VM.id)).state
        found = (await kinds(store))[2:]
    assert (state, found) == {
        "before": (VmState.CREATING, []),
        "after": (VmState.STARTING, ["VM_CREATED", "VM_STARTED"]),
    }[moment]


async def test_an_undone_start_says_that_it_failed(store: SqliteStore) -> None:
    class Target:
        op_id, vm_id, token = "op-3", VM.id, _TOKEN

    target: Any = Target()
    await store.vms.insert(VM, _TOKEN)
    step = MarkStarting(store.vms)
    await step.run(target)
    await step.undo(target)
    last = (await told(store))[-1].what
    assert (last.kind, last.cause, last.op_id) == (EventKind.VM_STOPPED, StopCause.START_FAILED, "op-3")


async def test_what_is_stored_of_labels_can_be_read_by_others(store: SqliteStore, tmp_path: Path) -> None:
    await store.vms.insert(replace(VM, settings=replace(VM.settings, labels={"a": "ü"})), _TOKEN)
    await store.vms.move(VM.id, VmState.STOPPED)
    with sqlite3.connect(tmp_path / "ingle.db") as db:
        (labels,) = db.execute("SELECT labels FROM events WHERE kind = 'VM_CREATED'").fetchone()
    assert json.loads(labels) == {"a": "ü"}
