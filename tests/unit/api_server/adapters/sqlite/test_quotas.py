"""What a user may have at a time: what makes it too much is refused as a whole, and what frees is always allowed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.config import load
from ingle.api_server.model.errors import Conflict, InvalidArgument, Reason
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.quota import NO_LIMITS, Quota, Use
from ingle.api_server.model.vm import Acceleration, Init, LiveVmm, Vm, VmState
from ingle.api_server.quotas import quota_of
from unit.api_server.vmms import IMAGE, KERNEL, ME, NOW, VM

ALICE, BOB = 1000, 1001
TOKEN = bytes(32)
LIVE = LiveVmm(4242, 99, Acceleration.TCG, NOW)
LIMITS = {ALICE: Quota(vms=3, vcpus=2, memory_bytes=3 << 30, disk_bytes=10 << 30, ports=1)}


def of(owner: int, number: int, **settings: object) -> Vm:
    made = replace(VM.settings, vcpus=1, memory_bytes=1 << 30, disk_bytes=2 << 30, **settings)  # type: ignore[arg-type]
    vm = replace(VM, owner=owner, id=f"{owner:06}{number:06}", name=f"vm-{number}", settings=made)
    return replace(vm, state=VmState.STOPPED, vmm=None)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    limits = dict(LIMITS)
    async with SqliteStore(tmp_path / "ingle.db", quota_of=lambda uid: limits.get(uid, NO_LIMITS)) as store:
        await store.images.add(IMAGE, "debian:bookworm", ME)
        await store.kernels.add(KERNEL, "debian", ME)
        yield store


async def test_of_many_creates_at_once_so_many_succeed_as_are_allowed(store: SqliteStore) -> None:
    made = await asyncio.gather(
        *(store.vms.insert(of(ALICE, number), TOKEN) for number in range(20)), return_exceptions=True
    )
    assert sum(isinstance(each, Vm) for each in made) == 3
    refused = next(each for each in made if isinstance(each, Conflict))
    assert refused.reason is Reason.QUOTA_EXCEEDED
    assert refused.message == "quota of VMs: 3 allowed, 3 used, 1 more wanted"
    assert refused.remedy.startswith("ingle quota; ingle vm delete VM")
    assert (await store.vms.use(ALICE)).vms == len(await store.vms.all()) == 3
    await store.vms.insert(of(BOB, 1), TOKEN)


async def test_of_many_starts_at_once_so_many_succeed_as_are_allowed(store: SqliteStore) -> None:
    vms = [await store.vms.insert(of(ALICE, number), TOKEN) for number in range(3)]
    moved = await asyncio.gather(*(store.vms.move(vm.id, VmState.STARTING) for vm in vms), return_exceptions=True)
    assert sum(isinstance(each, Vm) for each in moved) == 2
    refused = next(each for each in moved if isinstance(each, Conflict))
    assert refused.message == "quota of vcpus of VMs that are up: 2 allowed, 2 used, 1 more wanted"
    assert "ingle vm stop" in refused.remedy
    assert [vm.state for vm in await store.vms.all()].count(VmState.STOPPED) == 1, "it is what it was"
    up = next(each for each in moved if isinstance(each, Vm))
    stopped = next(vm for vm in await store.vms.all() if vm.state is VmState.STOPPED)
    await store.vms.move(up.id, VmState.STOPPED)
    await store.vms.move(stopped.id, VmState.STARTING)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"vcpus": 3}, "vcpus of VMs that are up: 2 allowed, 0 used, 3 more wanted"),
        ({"memory_bytes": 4 << 30}, "memory of VMs that are up: 3 GiB allowed, 0 bytes used, 4 GiB more wanted"),
        ({"ports": (PublishedPort(1, 1), PublishedPort(2, 2))}, "published ports of VMs that are up: 1 allowed, 0"),
    ],
)
async def test_what_counts_while_a_vm_is_up_is_refused_when_it_comes_up(
    store: SqliteStore, settings: dict[str, object], what: str
) -> None:
    vm = of(ALICE, 1)
    await store.vms.insert(replace(vm, settings=replace(vm.settings, **settings)), TOKEN)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match=what):
        await store.vms.move(vm.id, VmState.STARTING)
    assert (await store.vms.get(vm.id)).state is VmState.STOPPED


async def test_a_disk_that_grows_counts_at_once(store: SqliteStore) -> None:
    vm = await store.vms.insert(of(ALICE, 1), TOKEN)
    larger = replace(vm, settings=replace(vm.settings, disk_bytes=11 << 30))
    with pytest.raises(
        Conflict,
        match="memory of VMs that hibernate: 10 GiB allowed, 2 GiB used, 9 GiB more wanted",
    ):
        await store.vms.change(larger)
    assert await store.vms.get(vm.id) == vm
    with pytest.raises(Conflict, match="quota of disks"):
        await store.vms.check_room(ALICE, Use(disk_bytes=9 << 30))
    await store.vms.check_room(ALICE, Use(disk_bytes=8 << 30))


async def test_what_hibernates_has_its_memory_on_the_disk_until_it_wakes(store: SqliteStore) -> None:
    vm = of(ALICE, 1, init=Init.AGENT)
    vm = await store.vms.insert(replace(vm, settings=replace(vm.settings, disk_bytes=9 << 30)), TOKEN)

    async def moved(*states: VmState) -> Use:
        for state in states:
            await store.vms.move(vm.id, state, vmm=LIVE if state is VmState.RUNNING else None)
        return await store.vms.use(ALICE)

    assert await moved(VmState.STARTING, VmState.RUNNING, VmState.PAUSED) == Use(1, 1, 1 << 30, 9 << 30, 0)
    assert await moved(VmState.HIBERNATED) == Use(1, 0, 0, 10 << 30, 0)
    assert await moved(VmState.STARTING) == Use(1, 1, 1 << 30, 9 << 30, 0)
    assert await moved(VmState.HIBERNATED) == Use(1, 0, 0, 10 << 30, 0)
    await moved(VmState.STARTING, VmState.RUNNING)
    await store.vms.change(replace(await store.vms.get(vm.id), settings=replace(vm.settings, disk_bytes=10 << 30)))
    with pytest.raises(Conflict, match="memory of VMs that hibernate: 10 GiB allowed, 10 GiB used, 1 GiB more"):
        await moved(VmState.PAUSED, VmState.HIBERNATED)
    assert (await store.vms.get(vm.id)).state is VmState.PAUSED


async def test_one_that_can_not_wake_hibernates_again_whatever_was_taken_meanwhile(
    store: SqliteStore,
) -> None:
    vm = await store.vms.insert(of(ALICE, 1), TOKEN)
    for state in (VmState.STARTING, VmState.RUNNING, VmState.PAUSED, VmState.HIBERNATED, VmState.STARTING):
        await store.vms.move(vm.id, state, vmm=LIVE if state is VmState.RUNNING else None)
    larger = of(ALICE, 2)
    await store.vms.insert(replace(larger, settings=replace(larger.settings, disk_bytes=8 << 30)), TOKEN)
    await store.vms.move(vm.id, VmState.HIBERNATED)
    assert (await store.vms.use(ALICE)).disk_bytes == 11 << 30


async def test_what_frees_is_allowed_where_a_limit_was_lowered(tmp_path: Path) -> None:
    quota = NO_LIMITS
    async with SqliteStore(tmp_path / "ingle.db", quota_of=lambda uid: quota) as store:
        await store.images.add(IMAGE, "debian:bookworm", ME)
        await store.kernels.add(KERNEL, "debian", ME)
        vms = [await store.vms.insert(of(ALICE, number), TOKEN) for number in range(3)]
        for vm in vms:
            await store.vms.move(vm.id, VmState.STARTING)
        quota = Quota(vms=1, vcpus=0, memory_bytes=0, disk_bytes=0, ports=0)
        await store.vms.change(replace(vms[0], name="renamed"))
        for vm in vms:
            await store.vms.move(vm.id, VmState.STOPPED)
            await store.vms.delete(vm.id)


def test_a_quota_is_its_users_or_the_default_which_root_has_not(tmp_path: Path) -> None:
    file = tmp_path / "ingle" / "config.toml"
    file.parent.mkdir()
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert load(env).quotas.of(BOB, "bob") == NO_LIMITS
    file.write_text(
        'vcpus = 1\n[quotas]\nvms = 5\nmemory_bytes = "4G"\n'
        '[quotas.users.nobody]\nvms = 9\nmemory_bytes = "unlimited"\n'
        "[quotas.users.1000]\nports = 2\n[quotas.users.not-here]\nvms = 1\n"
    )
    quotas = load(env).quotas
    assert quota_of(quotas, 65534) == Quota(vms=9)
    assert quota_of(quotas, ALICE) == Quota(vms=5, memory_bytes=4 << 30, ports=2)
    assert quota_of(quotas, 3_000_000_000) == Quota(vms=5, memory_bytes=4 << 30)
    assert quota_of(quotas, 0) == NO_LIMITS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("quotas = 1", "a table is allowed"),
        ("[quotas]\nvm = 1", "unknown key 'vm'; did you mean 'vms'"),
        ("[quotas]\nvms = -1", "vms = -1: a number, or 'unlimited', is allowed"),
        ("[quotas]\nmemory_bytes = 'lots'", "memory_bytes = 'lots': a number"),
        ("[quotas]\nusers = 3", "a table for each is allowed"),
        ("[quotas.users.alice]\ndisk_bytes = true", "quotas.users.alice: disk_bytes = True: a number"),
    ],
)
def test_a_wrong_quota_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "ingle" / "config.toml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=told):
        load({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})
