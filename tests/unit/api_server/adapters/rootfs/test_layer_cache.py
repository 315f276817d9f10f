"""The layers that are kept: which of them go, and which don't."""

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.api_server.adapters.rootfs import DirectoryLayerCache
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.ports.layer_cache import Pruned
from oci_registry import Entry, Registry, layer, running_registry
from small_disk import small_disk
from unit.api_server.adapters.rootfs.nasty_image import Pulls

BLOCK = 4096


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "layers"


@pytest.fixture
def cache(root: Path) -> DirectoryLayerCache:
    return DirectoryLayerCache(root)


def put(root: Path, name: str, used_at: int) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * BLOCK)
    os.utime(path, (used_at, used_at))
    return path


async def test_one_that_is_not_there_is_empty(cache: DirectoryLayerCache, root: Path) -> None:
    assert await cache.prune() == await cache.prune(dry_run=True) == Pruned(0, 0)
    assert not root.exists()


async def test_what_was_not_used_for_longest_goes_first_down_to_the_bound(
    cache: DirectoryLayerCache, root: Path
) -> None:
    old, new, part = put(root, "layers/a", 1), put(root, "layers/b", 3), put(root, "fetching/c", 2)
    assert await cache.prune(3 * BLOCK) == Pruned(0, 0)
    assert await cache.prune(2 * BLOCK, dry_run=True) == Pruned(1, BLOCK)
    assert old.exists()
    assert await cache.prune(2 * BLOCK) == Pruned(1, BLOCK)
    assert (old.exists(), part.exists(), new.exists()) == (False, True, True)
    assert await cache.prune(BLOCK) == Pruned(1, BLOCK)
    assert await cache.prune() == Pruned(1, BLOCK)
    assert not [path for path in root.rglob("*") if path.is_file()]


async def test_what_a_pull_uses_or_makes_stays(cache: DirectoryLayerCache, root: Path) -> None:
    used, made = put(root, "layers/a", 1), put(root, "layers/.b", 1)
    lock = put(root, "locks/b", 1)
    with used.open("rb") as one, lock.open("rb") as other:
        fcntl.flock(one, fcntl.LOCK_SH)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert await cache.prune(dry_run=True) == await cache.prune() == Pruned(0, 0)
        assert used.exists()
        assert made.exists()
        assert lock.exists()
    assert await cache.prune() == Pruned(2, 2 * BLOCK)
    assert not lock.exists()


async def test_what_one_that_was_killed_has_put_aside_goes(cache: DirectoryLayerCache, root: Path) -> None:
    aside = put(root, "trash/0123", 1)
    await cache.prune()
    assert not aside.exists()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as registry:
        yield registry


async def test_pulls_and_prunes_at_the_same_time_are_no_matter(
    registry: Registry, tools: Tools, tmp_path: Path
) -> None:
    """Also where all is taken away the moment that nobody has it open."""
    for number in range(4):
        shared = layer(Entry("shared", b"s" * 3_000_000))
        registry.push(f"app:{number}", [shared, layer(Entry("own", bytes([65 + number]) * 2_000_000))])
    pulls = Pulls(tools, tmp_path, {})
    cache, ended = DirectoryLayerCache(pulls.cache), asyncio.Event()

    async def prune() -> int:
        blobs = 0
        while not ended.is_set():
            blobs += (await cache.prune()).blobs
            await asyncio.sleep(0)
        return blobs

    pruning = asyncio.create_task(prune())
    try:
        made = await asyncio.gather(*(pulls(f"{registry.host}/app:{number % 4}") for number in range(8)))
    finally:
        ended.set()
        blobs = await pruning
    assert blobs > 0
    for number, (image, _) in enumerate(made):
        assert (await pulls.seen(image, "cat /own"))[:3] == chr(65 + number % 4) * 3
    await cache.prune()
    assert not [path for name in ("layers", "fetching", "locks", "trash") for path in (pulls.cache / name).glob("*")]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
async def test_a_cache_that_takes_no_file_more_is_full_and_nobody_is_unreachable(
    registry: Registry, tools: Tools, tmp_path: Path
) -> None:
    registry.push("app:1", [layer(Entry("file", b"x"))])
    pulls = Pulls(tools, tmp_path, {})
    told = []
    for files in range(3, 8):
        with small_disk(pulls.cache, f"200m,nr_inodes={files}"):
            with pytest.raises(HostProblem) as raised:
                await pulls(f"{registry.host}/app:1")
            told.append(raised.value.reason)
    assert set(told) == {Reason.DISK_FULL}


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
async def test_a_cache_on_a_disk_that_takes_no_file_more_can_be_emptied(cache: DirectoryLayerCache, root: Path) -> None:
    with small_disk(root, "1m,nr_inodes=4"):
        layers = [put(root, f"layers/{name}", 1) for name in "ab"]
        with pytest.raises(OSError, match="No space left"):
            (root / "trash").mkdir()
        assert await cache.prune() == Pruned(2, 2 * BLOCK)
        assert not any(layer.exists() for layer in layers)
