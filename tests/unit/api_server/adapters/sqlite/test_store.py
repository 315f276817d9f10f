"""The store, in real SQLite files."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingle.api_server.adapters.sqlite import SqliteStore, check_database
from ingle.api_server.adapters.sqlite.problems import translated
from ingle.api_server.adapters.sqlite.schema import MIGRATIONS
from ingle.api_server.model.errors import Conflict, HostProblem, InvalidArgument, NotFound, Reason
from ingle.api_server.model.event import EventKind
from ingle.api_server.model.operation import Failure, Operation, OperationKind, OperationState
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.model.vm import Acceleration, Image, Init, Kernel, LiveVmm, Vm, VmSettings, VmState
from ingle.api_server.ports.store.journal import JournalEntry
from unit.api_server.vmms import ME, mine

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
IMAGE = Image("ab" * 32, ("debian:bookworm",), 300_000_000, NOW, "debian:bookworm")
KERNEL = Kernel("cd" * 32, ("debian",), "6.1.0", 60_000_000, ("00-virtio.ko",), NOW, "debian")
TOKEN = bytes(range(32))
VM = Vm(
    id="0123456789ab",
    name="demo",
    created_at=NOW,
    settings=VmSettings(
        image_id=IMAGE.id,
        image_name="debian:bookworm",
        kernel_id=KERNEL.id,
        kernel_name="debian",
        engine="qemu",
        acceleration=Acceleration.AUTO,
        disk_backend="qcow2",
        vcpus=1,
        memory_bytes=2**29,
        disk_bytes=2**33,
        env={"A": "b=c\n", "LANG": "ü"},
        init=Init.IMAGE,
        ssh_keys=("a key", "another"),
    ),
    state=VmState.CREATING,
)
THE_VM = Resource(ResourceKind.VM, VM.id)
_BY_RESOURCE = 6
"""The migration that makes the journal one by resource."""

LIVE = LiveVmm(pid=4242, start_time=99, acceleration=Acceleration.TCG, started_at=NOW, boot_id="b")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        await store.images.add(IMAGE, "debian:bookworm", ME)
        await store.kernels.add(KERNEL, "debian", ME)
        yield store


def of_vms(store: SqliteStore) -> tuple[Callable[[str], Awaitable[Vm]], Callable[[str], Awaitable[Vm]]]:
    """What resolves and what finds one of mine."""
    return lambda text: store.vms.exact(mine(text)), lambda text: store.vms.find(mine(text))


async def test_a_vm_comes_back_as_it_was_stored(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    assert await store.vms.exact(mine("demo")) == VM
    assert await store.vms.all() == [VM]
    assert await store.vms.token(VM.id) == TOKEN


async def test_a_slip_of_the_finger_is_answered_with_the_name_that_was_meant(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    resolve, find = of_vms(store)
    for look, typed, meant in (
        (resolve, "dmeo", "demo"),
        (find, "demmo", "demo"),
        (store.images.get, "debian:bokworm", "debian:bookworm"),
        (store.kernels.get, "debain", "debian"),
    ):
        with pytest.raises(NotFound, match=f"did you mean {meant}?"):
            await look(typed)
    with pytest.raises(NotFound) as refused:
        await resolve("x" * 1_000_000)
    assert "did you mean" not in refused.value.message


async def test_a_name_can_be_taken_once(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    with pytest.raises(Conflict) as refused:
        await store.vms.insert(replace(VM, id="ffffffffffff"), TOKEN)
    assert refused.value.reason is Reason.NAME_TAKEN
    assert await store.vms.all() == [VM]


async def test_one_of_many_concurrent_inserts_of_a_name_wins(store: SqliteStore) -> None:
    inserts = (store.vms.insert(replace(VM, id=f"{n:012x}"), TOKEN) for n in range(20))
    results = await asyncio.gather(*inserts, return_exceptions=True)
    assert sum(isinstance(result, Vm) for result in results) == 1
    assert len(await store.vms.all()) == 1


async def test_who_looks_may_give_an_id_a_name_or_a_unique_prefix(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    await store.vms.insert(replace(VM, id="01ffffffffff", name="other"), TOKEN)
    assert (await store.vms.find(mine("0123456789ab"))).name == "demo"
    assert (await store.vms.find(mine("012"))).name == "demo"
    assert (await store.vms.find(mine("other"))).id == "01ffffffffff"
    with pytest.raises(NotFound) as refused:
        await store.vms.find(mine("01"))
    assert refused.value.reason is Reason.AMBIGUOUS_REFERENCE
    with pytest.raises(InvalidArgument, match="no VM is named"):
        await store.vms.find(mine(""))
    for nothing in ("9", "dem", "012*", "%", "0123456789abc"):
        with pytest.raises(NotFound):
            await store.vms.find(mine(nothing))


async def test_who_changes_gives_an_id_or_a_name(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    assert (await store.vms.exact(mine(VM.id))).name == (await store.vms.exact(mine("demo"))).name == "demo"
    assert (await store.images.get(IMAGE.id)).id == IMAGE.id
    assert (await store.kernels.get(KERNEL.id)).id == KERNEL.id
    for exact, whole in ((of_vms(store)[0], VM.id), (store.images.get, IMAGE.id), (store.kernels.get, KERNEL.id)):
        with pytest.raises(NotFound, match="its name or its whole id"):
            await exact(whole[:-1])


async def test_an_id_wins_over_a_name_and_a_name_over_a_prefix(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    await store.vms.insert(replace(VM, id="ffffffffffff", name="012"), TOKEN)
    await store.vms.insert(replace(VM, id="eeeeeeeeeeee", name=VM.id), TOKEN)  # as it was once allowed
    assert (await store.vms.find(mine("012"))).id == (await store.vms.exact(mine("012"))).id == "ffffffffffff"
    assert (await store.vms.find(mine(VM.id))).name == (await store.vms.get(VM.id)).name == "demo"


async def test_running_facts_live_as_long_as_the_state(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    await store.vms.move(VM.id, VmState.STARTING)
    vm = await store.vms.move(VM.id, VmState.RUNNING, vmm=LIVE)
    assert vm.vmm == LIVE
    assert (await store.vms.move(VM.id, VmState.STOPPING)).vmm == LIVE
    stopped = await store.vms.move(VM.id, VmState.STOPPED)
    assert stopped.vmm is None
    known = replace(stopped, state_since=VM.state_since, disk_generation=VM.disk_generation)
    assert known == replace(VM, state=VmState.STOPPED)


async def test_since_when_a_vm_sleeps_is_known_until_it_is_awake(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    for state in (VmState.STARTING, VmState.RUNNING):
        assert (await store.vms.move(VM.id, state)).asleep_since is None
    since = (await store.vms.move(VM.id, VmState.PAUSED)).asleep_since
    assert since is not None
    for state in (VmState.HIBERNATED, VmState.STARTING, VmState.HIBERNATED, VmState.STARTING):
        assert (await store.vms.move(VM.id, state)).asleep_since == since
    awake = await store.vms.move(VM.id, VmState.RUNNING)
    assert awake.asleep_since is None
    assert awake.state_since >= since


async def test_a_disk_is_another_one_once_its_guest_may_have_gone_on(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    for state, outdates in (
        (VmState.STARTING, True),
        (VmState.RUNNING, True),
        (VmState.PAUSED, False),
        (VmState.RUNNING, True),
        (VmState.PAUSED, False),
        (VmState.HIBERNATED, False),
        (VmState.STARTING, False),  # what wakes says so itself, just before its guest goes on
        (VmState.HIBERNATED, False),
        (VmState.STOPPED, True),
        (VmState.STARTING, True),
    ):
        before = (await store.vms.get(VM.id)).disk_generation
        assert ((await store.vms.move(VM.id, state)).disk_generation > before) == outdates, state


async def test_what_went_wrong_is_told_until_the_state_changes(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    for state in (VmState.STARTING, VmState.RUNNING):
        await store.vms.move(VM.id, state)
    await store.vms.note_sleep_error(VM.id, "no space", "op-1")
    assert (await store.vms.get(VM.id)).error == "no space"
    told = (await store.events.behind(0, None)).events[-1].what
    assert (told.kind, told.message, told.op_id) == (EventKind.VM_SLEEP_FAILED, "no space", "op-1")
    assert (await store.vms.move(VM.id, VmState.PAUSED)).error == ""


async def test_each_start_has_a_token_of_its_own(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    await store.vms.move(VM.id, VmState.STARTING, token=bytes(range(32)))
    await store.vms.move(VM.id, VmState.RUNNING, vmm=LIVE)
    assert await store.vms.token(VM.id) == bytes(range(32))


async def test_illegal_moves_change_nothing(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    with pytest.raises(Conflict):
        await store.vms.move(VM.id, VmState.RUNNING, vmm=LIVE)
    assert await store.vms.get(VM.id) == VM


async def test_an_image_in_use_is_kept_and_the_refusal_names_the_vm(store: SqliteStore) -> None:
    await store.vms.insert(VM, TOKEN)
    for delete in (store.images.delete(IMAGE.id, ME), store.kernels.delete(KERNEL.id, ME)):
        with pytest.raises(Conflict, match="is used by VM demo"):
            await delete
    await store.vms.delete(VM.id)
    await store.images.delete(IMAGE.id, ME)
    await store.kernels.delete(KERNEL.id, ME)
    assert await store.images.all() == []
    assert await store.kernels.all() == []


async def test_a_name_moves_to_the_newest_image(store: SqliteStore) -> None:
    newer = replace(IMAGE, id="ef" * 32)
    await store.images.add(newer, "debian:bookworm", ME)
    assert (await store.images.get("debian:bookworm")).id == newer.id
    assert (await store.images.get(IMAGE.id)).names == ()


async def test_operations_come_back_newest_first_with_stages_and_failure(store: SqliteStore) -> None:
    first = Operation("op-1", OperationKind.CREATE_VM, OperationState.RUNNING, NOW, VM.id)
    told = first.with_stage("a", "doing a", NOW).with_progress("half", 0.5).with_stage("b", "doing b", NOW)
    ended = told.ended(OperationState.FAILED, NOW, Failure(Reason.DISK_FULL, "full", "df"))
    await store.operations.save(first)
    await store.operations.save(ended)
    await store.operations.save(replace(first, id="op-2"))
    assert [operation.id for operation in await store.operations.latest(10)] == ["op-2", "op-1"]
    assert await store.operations.get("op-1", ME) == ended
    with pytest.raises(NotFound):
        await store.operations.get("op-3", ME)


async def test_the_journal_of_one_resource_is_closed_and_the_others_and_the_operation_go_on(store: SqliteStore) -> None:
    operation = Operation("op-1", OperationKind.CREATE_VM, OperationState.RUNNING, NOW)
    await store.operations.save(operation)
    image = Resource(ResourceKind.IMAGE, THE_VM.id)  # the same id, even
    entries = [JournalEntry("op-1", resource, "reserve") for resource in (THE_VM, image)]
    for entry in (*entries, JournalEntry("op-2", THE_VM, "reserve")):
        await store.journal.intend(entry)
    await store.journal.close("op-1", THE_VM)
    assert await store.journal.open_entries() == [entries[1], JournalEntry("op-2", THE_VM, "reserve")]
    assert await store.journal.kept("op-1") == [THE_VM]
    assert await store.journal.kept("op-2") == []
    assert (await store.operations.get("op-1", ME)).state is OperationState.RUNNING
    await store.operations.save(operation.ended(OperationState.SUCCEEDED, NOW))
    assert await store.journal.kept("op-1") == []


async def test_a_journal_of_the_version_before_is_one_by_resource(tmp_path: Path) -> None:
    path = tmp_path / "ingle.db"
    with sqlite3.connect(path) as db:
        for version in range(_BY_RESOURCE):
            db.executescript(MIGRATIONS[version])
        db.execute(f"PRAGMA user_version = {_BY_RESOURCE}")
        db.execute("INSERT INTO journal (op_id, vm_id, step) VALUES ('op-1', ?, 'reserve')", (THE_VM.id,))
        db.execute("INSERT INTO journal (op_id, vm_id, step) VALUES ('op-1', ?, 'launch')", (THE_VM.id,))
    db.close()
    async with SqliteStore(path) as store:
        entries = [JournalEntry("op-1", THE_VM, step) for step in ("reserve", "launch")]
        assert await store.journal.open_entries() == entries
        await store.journal.intend(JournalEntry("op-1", THE_VM, "boot"))
        assert [entry.step for entry in await store.journal.open_entries()] == ["reserve", "launch", "boot"]


async def test_a_cancelled_call_happened_as_a_whole_or_not_at_all(store: SqliteStore) -> None:
    for turns in range(12):
        vm = replace(VM, id=f"{turns:012x}", name=f"vm-{turns}")
        task = asyncio.create_task(store.vms.insert(vm, TOKEN))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [found.name for found in await store.vms.all()].count(vm.name) in (0, 1)
    await store.vms.insert(VM, TOKEN)  # the connection still works


async def test_the_file_is_wal_with_foreign_keys_and_full_sync(store: SqliteStore, tmp_path: Path) -> None:
    async with store._database.transaction() as db:
        pragmas = {}
        for name in ("journal_mode", "foreign_keys", "synchronous", "user_version"):
            async with db.execute(f"PRAGMA {name}") as cursor:
                row = await cursor.fetchone()
                assert row is not None
                pragmas[name] = row[0]
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "user_version": len(MIGRATIONS)}


async def test_a_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ingle.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    before = path.read_bytes()
    with pytest.raises(HostProblem, match="newer ingle"):
        async with SqliteStore(path):
            pass
    with pytest.raises(HostProblem, match="newer ingle"):
        check_database(path)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ingle.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(HostProblem):
        async with SqliteStore(path):
            pass
    with pytest.raises(HostProblem):
        check_database(path)


async def test_a_doctor_looks_without_writing(store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "ingle.db"
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert "and whole" in check_database(path)
    assert path.stat().st_mtime_ns == before["ingle.db"]


@pytest.mark.parametrize("pages", [1, 2])
async def test_a_database_that_is_damaged_while_it_is_used_is_told_as_that(tmp_path: Path, pages: int) -> None:
    """By whatever reads or writes it next; `pages` are left."""
    path = tmp_path / "ingle.db"
    async with SqliteStore(path) as store:
        await store.images.add(IMAGE, "debian:bookworm", ME)
        await store.kernels.add(KERNEL, "debian", ME)
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        with path.open("r+b") as file:
            file.seek(4096 * pages)
            file.write(b"\xa5" * (path.stat().st_size - 4096 * pages))
        for use in (
            store.vms.all,
            store.images.all,
            store.vms.keepers,
            lambda: store.vms.find(mine("web")),
            lambda: store.operations.latest(10),
            lambda: store.vms.insert(VM, TOKEN),
            lambda: store.journal.intend(JournalEntry("op-1", THE_VM, "reserve")),
        ):
            with pytest.raises(HostProblem, match=f"database {path}: ") as raised:
                await use()
            assert f"move {path}* away, or restore it" in raised.value.remedy
    with pytest.raises(HostProblem, match=f"database {path}: "):
        check_database(path)


async def test_a_database_that_we_may_not_write_is_told_with_what_is_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ingle.db"
    async with SqliteStore(path):
        pass
    reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as refused:
        reader.execute("DELETE FROM vms")
    reader.close()
    assert translated(refused.value, path).remedy == "ingle doctor", "it is not the file's mode"
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    told = translated(refused.value, path)
    assert told.message == f"database {path}: uid {os.getuid()} may not write {path}"
    with pytest.raises(HostProblem, match="may not write"):
        check_database(path)
