"""The store, in real SQLite files."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingle.api_server.adapters.sqlite import SqliteStore, check_database
from ingle.api_server.adapters.sqlite.problems import translated
from ingle.api_server.adapters.sqlite.schema import MIGRATIONS
from ingle.api_server.model.errors import Conflict, HostProblem, NotFound, Reason
from ingle.api_server.model.operation import Failure, Operation, OperationKind, OperationState
from ingle.api_server.model.vm import Acceleration, Image, Init, Kernel, Running, Vm, VmState
from ingle.api_server.ports.store import JournalEntry

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
IMAGE = Image("ab" * 32, ("debian:bookworm",), 300_000_000, NOW, "debian:bookworm")
KERNEL = Kernel("cd" * 32, ("debian",), "6.1.0", 60_000_000, ("00-virtio.ko",), NOW, "debian")
TOKEN = bytes(range(32))
VM = Vm(
    id="0123456789ab",
    name="demo",
    state=VmState.CREATING,
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
    created_at=NOW,
    env={"A": "b=c\n", "LANG": "ü"},
    init=Init.IMAGE,
    ssh_keys=("a key", "another"),
)
RUNNING = Running(pid=4242, start_time=99, acceleration=Acceleration.TCG, started_at=NOW, boot_id="b")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        await store.add_image(IMAGE, "debian:bookworm")
        await store.add_kernel(KERNEL, "debian")
        yield store


async def test_a_vm_comes_back_as_it_was_stored(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    assert await store.vm("demo") == VM
    assert await store.vms() == [VM]
    assert await store.vm_token(VM.id) == TOKEN


async def test_a_slip_of_the_finger_is_answered_with_the_name_that_was_meant(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    for find, typed, meant in (
        (store.vm, "dmeo", "demo"),
        (store.find_vm, "demmo", "demo"),
        (store.image, "debian:bokworm", "debian:bookworm"),
        (store.kernel, "debain", "debian"),
    ):
        with pytest.raises(NotFound, match=f"did you mean {meant}?"):
            await find(typed)
    with pytest.raises(NotFound) as refused:
        await store.vm("x" * 1_000_000)
    assert "did you mean" not in refused.value.message


async def test_a_name_can_be_taken_once(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    with pytest.raises(Conflict) as refused:
        await store.insert_vm(replace(VM, id="ffffffffffff"), TOKEN)
    assert refused.value.reason is Reason.NAME_TAKEN
    assert await store.vms() == [VM]


async def test_one_of_many_concurrent_inserts_of_a_name_wins(store: SqliteStore) -> None:
    inserts = (store.insert_vm(replace(VM, id=f"{n:012x}"), TOKEN) for n in range(20))
    results = await asyncio.gather(*inserts, return_exceptions=True)
    assert sum(isinstance(result, Vm) for result in results) == 1
    assert len(await store.vms()) == 1


async def test_who_looks_may_give_an_id_a_name_or_a_unique_prefix(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    await store.insert_vm(replace(VM, id="01ffffffffff", name="other"), TOKEN)
    assert (await store.find_vm("0123456789ab")).name == "demo"
    assert (await store.find_vm("012")).name == "demo"
    assert (await store.find_vm("other")).id == "01ffffffffff"
    with pytest.raises(NotFound) as refused:
        await store.find_vm("01")
    assert refused.value.reason is Reason.AMBIGUOUS_REFERENCE
    for nothing in ("", "9", "dem", "012*", "%", "0123456789abc"):
        with pytest.raises(NotFound):
            await store.find_vm(nothing)


async def test_who_changes_gives_an_id_or_a_name(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    assert (await store.vm(VM.id)).name == (await store.vm("demo")).name == "demo"
    assert (await store.image(IMAGE.id)).id == IMAGE.id
    assert (await store.kernel(KERNEL.id)).id == KERNEL.id
    for exact, whole in ((store.vm, VM.id), (store.image, IMAGE.id), (store.kernel, KERNEL.id)):
        with pytest.raises(NotFound, match="its name or its whole id"):
            await exact(whole[:-1])


async def test_an_id_wins_over_a_name_and_a_name_over_a_prefix(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    await store.insert_vm(replace(VM, id="ffffffffffff", name="012"), TOKEN)
    await store.insert_vm(replace(VM, id="eeeeeeeeeeee", name=VM.id), TOKEN)  # as it was once allowed
    assert (await store.find_vm("012")).id == (await store.vm("012")).id == "ffffffffffff"
    assert (await store.find_vm(VM.id)).name == (await store.vm(VM.id)).name == "demo"


async def test_running_facts_live_as_long_as_the_state(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    await store.move_vm(VM.id, VmState.STARTING)
    vm = await store.move_vm(VM.id, VmState.RUNNING, running=RUNNING)
    assert vm.running == RUNNING
    assert (await store.move_vm(VM.id, VmState.STOPPING)).running == RUNNING
    stopped = await store.move_vm(VM.id, VmState.STOPPED)
    assert stopped.running is None
    assert stopped == replace(VM, state=VmState.STOPPED)


async def test_each_start_has_a_token_of_its_own(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    await store.move_vm(VM.id, VmState.STARTING, token=bytes(range(32)))
    await store.move_vm(VM.id, VmState.RUNNING, running=RUNNING)
    assert await store.vm_token(VM.id) == bytes(range(32))


async def test_illegal_moves_change_nothing(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    with pytest.raises(Conflict):
        await store.move_vm(VM.id, VmState.RUNNING, running=RUNNING)
    assert await store.vm(VM.id) == VM


async def test_an_image_in_use_is_kept_and_the_refusal_names_the_vm(store: SqliteStore) -> None:
    await store.insert_vm(VM, TOKEN)
    for delete in (store.delete_image(IMAGE.id), store.delete_kernel(KERNEL.id)):
        with pytest.raises(Conflict, match="is used by VM demo"):
            await delete
    await store.delete_vm(VM.id)
    await store.delete_image(IMAGE.id)
    await store.delete_kernel(KERNEL.id)
    assert await store.images() == []
    assert await store.kernels() == []


async def test_a_name_moves_to_the_newest_image(store: SqliteStore) -> None:
    newer = replace(IMAGE, id="ef" * 32)
    await store.add_image(newer, "debian:bookworm")
    assert (await store.image("debian:bookworm")).id == newer.id
    assert (await store.image(IMAGE.id)).names == ()


async def test_operations_come_back_newest_first_with_stages_and_failure(store: SqliteStore) -> None:
    first = Operation("op-1", OperationKind.CREATE_VM, OperationState.RUNNING, NOW, VM.id)
    told = first.with_stage("a", "doing a", NOW).with_progress("half", 0.5).with_stage("b", "doing b", NOW)
    ended = told.ended(OperationState.FAILED, NOW, Failure(Reason.DISK_FULL, "full", "df"))
    await store.save_operation(first)
    await store.save_operation(ended)
    await store.save_operation(replace(first, id="op-2"))
    assert [operation.id for operation in await store.operations(10)] == ["op-2", "op-1"]
    assert await store.operation("op-1") == ended
    with pytest.raises(NotFound):
        await store.operation("op-3")


async def test_closing_the_journal_makes_the_operation_a_success_at_once(store: SqliteStore) -> None:
    await store.save_operation(Operation("op-1", OperationKind.CREATE_VM, OperationState.RUNNING, NOW))
    await store.intend(JournalEntry("op-1", VM.id, "reserve"))
    await store.close("op-1")
    assert await store.open_entries() == []
    assert (await store.operation("op-1")).state is OperationState.SUCCEEDED


async def test_a_cancelled_call_happened_as_a_whole_or_not_at_all(store: SqliteStore) -> None:
    for turns in range(12):
        vm = replace(VM, id=f"{turns:012x}", name=f"vm-{turns}")
        task = asyncio.create_task(store.insert_vm(vm, TOKEN))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [found.name for found in await store.vms()].count(vm.name) in (0, 1)
    await store.insert_vm(VM, TOKEN)  # the connection still works


async def test_the_file_is_wal_with_foreign_keys_and_full_sync(store: SqliteStore, tmp_path: Path) -> None:
    async with store._transaction() as db:
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
    assert "0 VMs" in check_database(path)
    assert path.stat().st_mtime_ns == before["ingle.db"]


@pytest.mark.parametrize("pages", [1, 2])
async def test_a_database_that_is_damaged_while_it_is_used_is_told_as_that(tmp_path: Path, pages: int) -> None:
    """By whatever reads or writes it next; `pages` are left."""
    path = tmp_path / "ingle.db"
    async with SqliteStore(path) as store:
        await store.add_image(IMAGE, "debian:bookworm")
        await store.add_kernel(KERNEL, "debian")
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        with path.open("r+b") as file:
            file.seek(4096 * pages)
            file.write(b"\xa5" * (path.stat().st_size - 4096 * pages))
        for use in (
            store.vms,
            store.images,
            store.owners,
            lambda: store.find_vm("web"),
            lambda: store.operations(10),
            lambda: store.insert_vm(VM, TOKEN),
            lambda: store.intend(JournalEntry("op-1", VM.id, "reserve")),
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
