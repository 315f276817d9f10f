"""What is whose, in the store and in operations: a stranger's does not exist, in the same words as what never was."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.adapters.clock import HostClock
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.adapters.sqlite.schema import MIGRATIONS
from ingle.api_server.adapters.sqlite.settings import encoded
from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.errors import Conflict, NotFound, Reason
from ingle.api_server.model.operation import OperationKind, OperationState
from ingle.api_server.model.vm import Vm
from ingle.api_server.operations.runner import Operations, Progress
from unit.api_server.vmms import IMAGE, KERNEL, ME, VM

ALICE, BOB = Caller(1000), Caller(1001)
TOKEN = bytes(32)
IMAGE_AS_STORED = replace(IMAGE, names=("debian:bookworm",), owners=(ME.uid,))
_BEFORE_OWNERS = next(number for number, migration in enumerate(MIGRATIONS) if "heir()" in migration)
HERS = replace(VM, owner=ALICE.uid, id="aa0000000000", name="web")
HIS = replace(VM, owner=BOB.uid, id="aa0000000001", name="web")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "ingle.db") as store:
        await store.images.add(IMAGE, "debian:bookworm", ME)
        await store.kernels.add(KERNEL, "debian", ME)
        yield store


async def said_to(caller: Caller, store: SqliteStore, text: str) -> list[str]:
    """What a caller hears who says that, and who only looks."""
    said = []
    for way in (store.vms.exact, store.vms.find):
        with pytest.raises(NotFound) as refused:
            await way(Reference(caller, text))
        said.append(f"{refused.value.reason} {refused.value.message} {refused.value.remedy}")
    return said


async def test_two_users_may_have_a_name_each_and_mean_their_own(store: SqliteStore) -> None:
    assert [await store.vms.insert(vm, TOKEN) for vm in (HERS, HIS)] == [HERS, HIS]
    assert await store.vms.exact(Reference(ALICE, "web")) == await store.vms.find(Reference(ALICE, "aa")) == HERS
    assert await store.vms.exact(Reference(BOB, "web")) == await store.vms.exact(Reference(BOB, HIS.id)) == HIS
    assert (await store.vms.of(ALICE), await store.vms.of(BOB)) == ([HERS], [HIS])
    with pytest.raises(Conflict) as refused:
        await store.vms.insert(replace(HERS, id="aa0000000002"), TOKEN)
    assert refused.value.reason is Reason.NAME_TAKEN


@pytest.mark.parametrize("text", ["web", "we", "aa0000000000", "aa000000000", "a", "1000/web", "1000/aa0000000000"])
async def test_a_strangers_vm_is_told_in_the_words_of_one_that_never_was(store: SqliteStore, text: str) -> None:
    before = await said_to(BOB, store, text)
    await store.vms.insert(HERS, TOKEN)
    assert await said_to(BOB, store, text) == before


async def test_an_admin_says_whose_it_is_or_an_id(store: SqliteStore) -> None:
    for vm in (HERS, HIS):
        await store.vms.insert(vm, TOKEN)
    admin = Caller(1002, admin=True)
    for text, meant in (("1000/web", HERS), ("1001/web", HIS), (HERS.id, HERS), ("1001/aa0000000001", HIS)):
        assert await store.vms.exact(Reference(admin, text)) == meant
    assert await store.vms.find(Reference(admin, "1001/aa")) == HIS
    with pytest.raises(NotFound, match="did you mean 1000/web"):
        await store.vms.exact(Reference(admin, "web"))
    assert await store.vms.of(admin) == []
    assert await store.vms.of(admin, all_users=True) == [HERS, HIS]
    with pytest.raises(Conflict) as refused:
        await store.vms.of(ALICE, all_users=True)
    assert refused.value.reason is Reason.NOT_ADMIN


async def test_networks_of_the_same_name_are_not_the_same(store: SqliteStore) -> None:
    def connected(vm: Vm, number: int) -> Vm:
        settings = replace(vm.settings, network="default", nat=False)
        return replace(vm, id=f"{number:012x}", name=f"vm-{number}", settings=settings)

    vms = [await store.vms.insert(connected(vm, n), TOKEN) for n, vm in enumerate((HERS, HIS, HERS))]
    assert [vm.slot for vm in vms] == [2, 256 + 2, 3]
    await store.vms.delete(vms[0].id)
    await store.vms.delete(vms[2].id)
    again = await store.vms.insert(connected(replace(HERS, owner=1005), 9), TOKEN)
    assert again.slot == 2, "the number of a network without VMs is free"


async def test_what_was_there_before_owners_is_the_heirs(tmp_path: Path) -> None:
    path = tmp_path / "ingle.db"
    with sqlite3.connect(path) as db:
        for version in range(_BEFORE_OWNERS):
            db.executescript(MIGRATIONS[version])
        db.execute(f"PRAGMA user_version = {_BEFORE_OWNERS}")
        db.execute("INSERT INTO images VALUES (?, 1, 1, 'x')", (IMAGE.id,))
        db.execute("INSERT INTO kernels VALUES (?, '', 1, '[]', 1, 'x')", (KERNEL.id,))
        settings = encoded(replace(VM.settings, network="default", nat=False))
        db.execute(
            "INSERT INTO vms (id, name, created_at, settings, state, error, slot, token, generation)"
            " VALUES (?, 'web', 1, ?, 'stopped', '', 515, ?, 7)",
            (HERS.id, settings, TOKEN),
        )
        db.execute("INSERT INTO networks VALUES ('default', 2)")
        db.execute("INSERT INTO former VALUES (?, 'wob', ?)", (HERS.id, settings))
        db.execute("INSERT INTO operations VALUES ('op-1', 'STOP_VM', 'SUCCEEDED', 1, 2, '', '[]', NULL, NULL, NULL)")
    db.close()
    async with SqliteStore(path, heir=ALICE.uid) as store:
        (vm,) = await store.vms.of(ALICE)
        assert (vm.name, vm.slot, vm.generation, vm.owner) == ("web", 515, 7, ALICE.uid)
        assert [operation.id for operation in await store.operations.of(ALICE)] == ["op-1"]
        assert await store.vms.changed(HERS.id) == vm
        other = replace(vm, id="bb0000000000", name="two")
        assert (await store.vms.insert(other, TOKEN)).slot == 514, "its network is the one that was there"
    async with SqliteStore(path, heir=BOB.uid) as store:
        assert await store.vms.of(BOB) == [], "it is inherited once"


async def test_all_use_an_image_and_only_who_made_it_or_named_it_changes_that(store: SqliteStore) -> None:
    image = replace(IMAGE, id="ee" * 32, owner=ALICE.uid)
    await store.images.add(image, "app:v1", ALICE)
    assert (await store.images.get("app:v1")).owner == ALICE.uid
    with pytest.raises(Conflict) as refused:
        await store.images.add(replace(IMAGE, id="ff" * 32), "app:v1", BOB)
    assert refused.value.reason is Reason.NOT_OWNER
    assert (await store.images.get("app:v1")).id == image.id
    hers = replace(image, names=("app:v1",), owners=(ALICE.uid,))
    assert await store.images.all() == [IMAGE_AS_STORED, hers], "nothing was left"
    with pytest.raises(Conflict, match=f"image app:v1 is of uid {ALICE.uid}") as refused:
        await store.images.delete(image.id, BOB)
    assert refused.value.reason is Reason.NOT_OWNER
    assert await store.images.delete(image.id, ALICE)
    assert await store.images.all() == [IMAGE_AS_STORED]


@pytest.mark.parametrize(("first", "second"), [(ALICE, BOB), (BOB, ALICE)])
async def test_who_deletes_what_others_have_too_gives_up_its_own_and_it_goes_with_the_last(
    store: SqliteStore, first: Caller, second: Caller
) -> None:
    image = replace(IMAGE, id="ee" * 32, owner=ALICE.uid)
    names = {ALICE: "app:v1", BOB: "my-app"}
    for caller, name in names.items():
        await store.images.add(replace(image, owner=caller.uid), name, caller)
    shared = await store.images.get(image.id)
    assert (shared.owner, shared.owners, shared.names) == (ALICE.uid, (ALICE.uid, BOB.uid), ("app:v1", "my-app"))

    vm = await store.vms.insert(replace(HERS, settings=replace(HERS.settings, image_id=image.id)), TOKEN)
    assert not await store.images.delete(image.id, first), "also while one's VM uses it: it stays"
    left = await store.images.get(names[second])
    assert (left.owner, left.owners, left.names) == (second.uid, (second.uid,), (names[second],))
    with pytest.raises(Conflict) as refused:
        await store.images.delete(image.id, first)
    assert refused.value.reason is Reason.NOT_OWNER
    with pytest.raises(Conflict) as refused:
        await store.images.delete(image.id, second)
    assert refused.value.reason is Reason.IN_USE
    await store.vms.delete(vm.id)
    assert await store.images.delete(image.id, second)
    assert await store.images.all() == [IMAGE_AS_STORED]


async def test_who_has_given_its_last_name_away_has_it_still(store: SqliteStore) -> None:
    """It was made by that user; prune takes what nobody else has."""
    image = replace(IMAGE, id="ee" * 32, owner=ALICE.uid)
    await store.images.add(image, "app:v1", ALICE)
    await store.images.add(replace(image, owner=BOB.uid), "my-app", BOB)
    await store.images.add(replace(image, id="ff" * 32), "app:v1", ALICE)
    assert (await store.images.get(image.id)).owners == (ALICE.uid, BOB.uid)
    assert not await store.images.delete(image.id, BOB)
    assert (await store.images.get(image.id)).owners == (ALICE.uid,)
    assert await store.images.delete(image.id, ALICE)


async def test_an_admin_deletes_everybodys_at_once(store: SqliteStore) -> None:
    image = replace(IMAGE, id="ee" * 32, owner=ALICE.uid)
    for caller, name in ((ALICE, "app:v1"), (BOB, "my-app")):
        await store.images.add(replace(image, owner=caller.uid), name, caller)
    await store.images.delete(image.id, ME)
    assert await store.images.all() == [IMAGE_AS_STORED]


async def test_who_may_delete_an_image_hears_of_strangers_vms_only_that_there_are_some(store: SqliteStore) -> None:
    await store.images.add(IMAGE, "debian:bookworm", ME)
    for vm in (HERS, HIS):
        await store.vms.insert(vm, TOKEN)
    for owner, told in ((ALICE, "by VM web and by VMs of other users"), (Caller(1002), "by VMs of other users")):
        image = replace(IMAGE, id="ee" * 32, owner=owner.uid)
        await store.images.add(image, f"of-{owner.uid}", owner)
        settings = replace(VM.settings, image_id=image.id)
        for vm in (HERS, HIS):
            await store.vms.insert(
                replace(vm, id=f"{owner.uid}{vm.id[4:]}", name=f"x{owner.uid}", settings=settings), TOKEN
            )
        with pytest.raises(Conflict) as refused:
            await store.images.delete(image.id, owner)
        assert refused.value.message.endswith(told.replace("web", f"x{owner.uid}"))
        assert "1001" not in refused.value.message
        for vm in (HERS, HIS):
            await store.vms.delete(f"{owner.uid}{vm.id[4:]}")
        await store.images.delete(image.id, owner)


async def test_a_strangers_operation_is_neither_told_nor_watched_nor_cancelled(store: SqliteStore) -> None:
    operations = Operations(store.operations, HostClock())
    released = asyncio.Event()

    async def work(progress: Progress) -> None:
        await released.wait()

    running = await operations.begin("op-000000000001", ALICE.uid, OperationKind.STOP_VM, work)
    for state in (OperationState.RUNNING, OperationState.SUCCEEDED):
        for op_id in ("op-000000000001", "op-00000000000f"):
            said = set()
            for way in (operations.get, operations.cancel, lambda *asked: anext(operations.watch(*asked))):
                with pytest.raises(NotFound) as refused:
                    await way(op_id, BOB)
                said.add(f"{refused.value.reason} {refused.value.message}")
            assert said == {f"Reason.OPERATION_NOT_FOUND no operation {op_id!r}"}
        await operations.cancel_if_known("op-000000000001", BOB)
        assert (await operations.get("op-000000000001", ALICE)).state is state
        assert (await operations.list(BOB), len(await operations.list(ALICE))) == ([], 1)
        assert len(await operations.list(ME, all_users=True)) == 1
        with pytest.raises(Conflict, match="ingle-admin"):
            await operations.list(BOB, all_users=True)
        released.set()
        if state is OperationState.RUNNING:
            await running.result()
