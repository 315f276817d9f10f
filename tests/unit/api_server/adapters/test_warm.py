"""The cache of pristine guests: what is published is whole, what is damaged is told, and who comes last goes last."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ingle.api_server.adapters.vm_files import LocalVmFiles
from ingle.api_server.adapters.warm import DirectoryWarmCache
from ingle.api_server.host.files import allocated_bytes
from ingle.api_server.model.errors import BadFile, Reason
from ingle.api_server.model.vm import Acceleration
from ingle.api_server.model.warm import Machine, WarmMemory
from ingle.api_server.ports.engine import VmPaths
from unit.api_server.vmms import NOW, VM

MIB = 1 << 20
MACHINE = Machine.of(VM, Acceleration.TCG, "engine 1.0", "agent 1")
TOKEN = bytes(range(32))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "warm"


@pytest.fixture
def cache(root: Path) -> DirectoryWarmCache:
    return DirectoryWarmCache(root)


def booted(cache: DirectoryWarmCache, root: Path, vm_id: str = VM.id) -> VmPaths:
    """What is there of a guest that was saved: 512 MiB of memory, of which it has used one."""
    paths = LocalVmFiles(cache.work, root / "run").paths(vm_id)
    cache.make_directory(paths)
    memory = cache.memory(paths)
    with (memory / "ram").open("wb") as ram:
        ram.seek(100 * MIB)
        ram.write(os.urandom(MIB))
        ram.truncate(512 * MIB)
    (memory / "state").write_bytes(os.urandom(5000))
    (paths.state / "disk.qcow2").write_bytes(os.urandom(3000))
    paths.console_log.write_text("what it said")
    return paths


async def published(cache: DirectoryWarmCache, root: Path, machine: Machine = MACHINE, later: int = 0) -> WarmMemory:
    paths = booted(cache, root)
    now = NOW + timedelta(seconds=later)
    return await cache.publish(machine, paths, paths.state / "disk.qcow2", TOKEN, now)


async def test_what_is_published_is_found_with_all_that_it_takes_to_start_from_it(
    cache: DirectoryWarmCache, root: Path
) -> None:
    assert await cache.find(MACHINE.key) is None
    assert await cache.all() == []
    made = await published(cache, root)
    found = await DirectoryWarmCache(root).find(MACHINE.key)
    assert found == made
    assert (found.machine, found.token, found.created_at, found.used_at) == (MACHINE, TOKEN, NOW, NOW)
    assert {path.name for path in found.memory.iterdir()} == {"ram", "state"}
    assert found.disk.stat().st_mode & 0o777 == 0o400
    assert MIB <= found.allocated_bytes < 2 * MIB
    assert not (root / MACHINE.key / "console.log").exists(), "what else was there is dropped"
    assert list(cache.work.iterdir()) == []
    assert repr(TOKEN) not in repr(found)


async def test_a_token_is_for_its_owner_alone(cache: DirectoryWarmCache, root: Path) -> None:
    await published(cache, root)
    assert (root / MACHINE.key / "manifest.json").stat().st_mode & 0o777 == 0o600
    assert (root / MACHINE.key).stat().st_mode & 0o777 == 0o700


async def test_another_one_of_the_same_machine_takes_its_place(cache: DirectoryWarmCache, root: Path) -> None:
    await published(cache, root)
    await published(cache, root, later=5)
    (found,) = await cache.all()
    assert found.created_at == NOW + timedelta(seconds=5)
    assert await cache.find(MACHINE.key) == found


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    """One bit, in the middle of what is there."""
    at = 100 * MIB + 77 if path.name == "ram" else path.stat().st_size // 2
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 1,)))


def write_where_nothing_was(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(b"x")


def garble(path: Path) -> None:
    path.write_text("{")


@pytest.mark.parametrize("warm_up", [True, False], ids=["a server that knows it", "another server"])
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("memory/ram", truncate),
        ("memory/ram", flip),
        ("memory/ram", write_where_nothing_was),
        ("memory/ram", Path.unlink),
        ("memory/state", flip),
        ("memory/state", Path.unlink),
        ("disk", flip),
        ("disk", Path.unlink),
        ("manifest.json", garble),
        ("manifest.json", Path.unlink),
        ("manifest.json", truncate),
    ],
)
async def test_damage_is_told_and_never_started_from(
    cache: DirectoryWarmCache, root: Path, name: str, damage: Callable[[Path], None], warm_up: bool
) -> None:
    await published(cache, root)
    assert await cache.find(MACHINE.key) is not None
    damage(root / MACHINE.key / name)
    with pytest.raises(BadFile) as raised:
        await (cache if warm_up else DirectoryWarmCache(root)).find(MACHINE.key)
    assert raised.value.reason is Reason.MEMORY_DAMAGED
    assert name.rpartition("/")[2] in raised.value.message
    await cache.remove(MACHINE.key)
    assert await cache.find(MACHINE.key) is None


async def test_an_entry_under_the_name_of_another_machine_is_not_its(cache: DirectoryWarmCache, root: Path) -> None:
    await published(cache, root)
    other = replace(MACHINE, owner=4711)
    shutil.copytree(root / MACHINE.key, root / other.key)
    with pytest.raises(BadFile, match="another machine"):
        await cache.find(other.key)


async def test_a_copy_of_it_is_as_good_wherever_its_holes_are(cache: DirectoryWarmCache, root: Path) -> None:
    made = await published(cache, root)
    other = root.parent / "other"
    shutil.copytree(root, other)  # which knows no holes
    copy = await DirectoryWarmCache(other).find(MACHINE.key)
    assert copy is not None
    assert copy.allocated_bytes > 100 * made.allocated_bytes


async def test_the_least_recently_used_make_room_and_those_in_use_stay(cache: DirectoryWarmCache, root: Path) -> None:
    machines = [replace(MACHINE, vcpus=number) for number in range(1, 5)]
    for number, machine in enumerate(machines):
        await published(cache, root, machine, later=number)
    await cache.used(machines[0].key, NOW + timedelta(seconds=100))
    one = allocated_bytes(root / MACHINE.key / "memory" / "ram")
    assert await cache.bound(10 * one, []) == []
    gone = await cache.bound(int(2.5 * one), [machines[1].key])
    assert gone == [machines[2].key, machines[3].key]
    assert [memory.machine for memory in await cache.all()] == [machines[1], machines[0]]
    assert await cache.bound(0, [machines[0].key]) == [machines[1].key]


async def test_who_makes_many_loses_its_own_and_nobody_elses(cache: DirectoryWarmCache, root: Path) -> None:
    """Though the others' were used long before."""
    alices, bobs = replace(MACHINE, owner=1000), [replace(MACHINE, owner=1001, vcpus=number) for number in range(1, 5)]
    for number, machine in enumerate([alices, *bobs]):
        await published(cache, root, machine, later=number)
    one = allocated_bytes(root / alices.key / "memory" / "ram")
    assert await cache.bound(int(3.5 * one), []) == [bobs[0].key, bobs[1].key]
    assert await cache.bound(int(2.5 * one), [each.key for each in bobs]) == [alices.key], "what is in use stays"


async def test_a_server_that_was_killed_leaves_nothing(cache: DirectoryWarmCache, root: Path) -> None:
    made = await published(cache, root)
    booted(cache, root, "ab" * 6)
    (root / ".trash" / "half").mkdir(parents=True)
    again = DirectoryWarmCache(root)
    await again.sweep()
    assert sorted(path.name for path in root.iterdir()) == [MACHINE.key]
    assert await again.all() == [made]


async def test_a_cache_that_was_deleted_is_an_empty_one(cache: DirectoryWarmCache, root: Path) -> None:
    await published(cache, root)
    shutil.rmtree(root)
    assert await cache.find(MACHINE.key) is None
    assert await cache.all() == []
    await cache.used(MACHINE.key, NOW)
    await cache.remove(MACHINE.key)
    assert await cache.bound(0, []) == []
    await cache.sweep()
    assert await published(cache, root) == await cache.find(MACHINE.key)


async def test_what_else_is_there_is_left_alone(cache: DirectoryWarmCache, root: Path) -> None:
    await published(cache, root)
    (root / "somebody's").mkdir()
    (root / ("f" * 64)).mkdir()  # an entry without anything in it
    (memory,) = await cache.all()
    assert memory.machine == MACHINE
    await cache.bound(0, [])
    assert (root / "somebody's").is_dir()
