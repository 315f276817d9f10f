"""The files of snapshots that are kept against others: made whole, made flat, and stopped anywhere in it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.adapters.snapshot_files import LocalSnapshotFiles
from ingle.api_server.model.errors import BadFile, HostProblem, Reason
from ingle.api_server.model.snapshot import Snapshot
from small_disk import small_disk
from unit.api_server.adapters.test_snapshot_files import BEFORE

PAGE = 4096
PAGES = 600
MIB = 2**20

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a file system is mounted by root")


async def kept(
    at: LocalSnapshotFiles, number: int, ram: bytes, above: Sequence[Snapshot], *, at_any_price: bool = False
) -> Snapshot:
    """A snapshot with that memory, and a disk of its number, against the ones above it."""
    snapshot = replace(BEFORE, id=f"{number:012x}", name=f"number-{number}", memory=True)
    directory = await at.begin(snapshot)
    (directory / "disk.raw").write_bytes(str(number).encode() * PAGE)
    (at.memory(directory) / "ram").write_bytes(ram)
    (at.memory(directory) / "state").write_bytes(f"state {number}".encode())
    if above:
        await at.verify(above)
        await at.thin(snapshot, above, disk=False)
        if await at.settle_thin(snapshot, at_any_price=at_any_price):
            snapshot = replace(snapshot, parent_id=above[0].id)
    sealed = await at.publish(snapshot)
    return replace(snapshot, size_bytes=sealed.size_bytes, digest=sealed.digest)


async def chain_of(at: LocalSnapshotFiles, count: int) -> tuple[list[Snapshot], list[bytes]]:
    """The newest one first."""
    rams = [os.urandom(PAGES * PAGE)]
    chain = [await kept(at, 0, rams[0], [])]
    for number in range(1, count):
        rams.insert(0, rams[0][: number * PAGE] + os.urandom(PAGE) + rams[0][(number + 1) * PAGE :])
        chain.insert(0, await kept(at, number, rams[0], chain))
    return chain, rams


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


async def test_each_of_a_chain_is_whole_where_it_is_used(tmp_path: Path) -> None:
    at = LocalSnapshotFiles(tmp_path)
    chain, rams = await chain_of(at, 4)
    for level in range(4):
        at = LocalSnapshotFiles(tmp_path)
        await at.verify(chain[level:])
        whole = await at.whole(chain[level:])
        state = f"state {3 - level}".encode()
        assert content(whole.memory) == {"ram": rams[level], "state": state}
        assert whole.disk == at.path(chain[level].id)
        again = await LocalSnapshotFiles(tmp_path).whole(chain[level:])
        assert again == whole
        await at.verify(chain[level:])
        await at.forget_whole(chain[level].id)
        await at.forget_whole(chain[level].id)
        await at.verify(chain[level:])
    assert all((at.path(each.id) / "memory" / "ram").exists() == (each is chain[-1]) for each in chain)


async def test_what_saves_little_is_kept_as_it_is_unless_it_is_wished(tmp_path: Path) -> None:
    at = LocalSnapshotFiles(tmp_path)
    ram = os.urandom(PAGES * PAGE)
    first = await kept(at, 0, ram, [])
    other = await kept(at, 1, os.urandom(PAGES * PAGE // 2) + ram[PAGES * PAGE // 2 :], [first], at_any_price=True)
    assert other.parent_id == first.id
    most = os.urandom(PAGES * PAGE * 9 // 10) + ram[PAGES * PAGE * 9 // 10 :]
    alone = await kept(at, 2, most, [first])
    assert (alone.parent_id, content(at.memory(at.path(alone.id)))["ram"]) == ("", most)
    await at.verify([alone])


async def test_a_level_that_is_damaged_is_named(tmp_path: Path) -> None:
    at = LocalSnapshotFiles(tmp_path)
    chain, _ = await chain_of(at, 3)
    path = at.path(chain[1].id) / "memory" / "ram.delta"
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    for files in (at, LocalSnapshotFiles(tmp_path)):
        with pytest.raises(BadFile, match=r"number-2.*rests on.*number-1") as refused:
            await files.verify(chain)
        assert refused.value.reason is Reason.SNAPSHOT_INVALID
    await at.verify(chain[2:])


async def flat(at: LocalSnapshotFiles, chain: Sequence[Snapshot]) -> Snapshot:
    """What it is to be when it is."""
    now = replace(chain[0], parent_id="")
    directory = await at.begin_flat(now)
    assert directory.is_dir()
    sealed = await at.publish_flat(chain, now)
    return replace(now, size_bytes=sealed.size_bytes, digest=sealed.digest)


class Killed(Exception):
    """The server was."""


@pytest.mark.parametrize("moves", range(6))
async def test_what_is_made_flat_is_one_or_the_other_wherever_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    at = LocalSnapshotFiles(tmp_path)
    chain, rams = await chain_of(at, 3)
    now = await flat(at, chain[1:])
    await at.verify(chain)
    left = moves

    def replace_some(self: Path, target: Path) -> Path:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        os.replace(self, target)
        return target

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace_some)
        if moves < 4:
            with pytest.raises(Killed):
                await at.settle_flat(now.id, now.digest)
        else:
            await at.settle_flat(now.id, now.digest)
    again = LocalSnapshotFiles(tmp_path)
    await again.settle_flat(now.id, now.digest)
    await again.settle_flat(now.id, now.digest)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(each.id for each in chain)
    await again.verify([now])
    assert content(again.memory(again.path(now.id))) == {"ram": rams[1], "state": b"state 1"}
    whole = await again.whole([chain[0], now])
    assert content(whole.memory)["ram"] == rams[0]


async def test_what_was_not_to_become_flat_is_what_it_was(tmp_path: Path) -> None:
    at = LocalSnapshotFiles(tmp_path)
    chain, rams = await chain_of(at, 2)
    await flat(at, chain)
    await at.settle_flat(chain[0].id, chain[0].digest)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(each.id for each in chain)
    await LocalSnapshotFiles(tmp_path).verify(chain)
    assert content((await at.whole(chain)).memory)["ram"] == rams[0]


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "little", "8m") as at:
        yield at


@as_root
async def test_a_disk_that_fills_up_half_way_leaves_all_as_it_was(little: Path) -> None:
    at = LocalSnapshotFiles(little)
    chain, rams = await chain_of(at, 3)
    room = os.statvfs(little).f_bavail * PAGE
    for free in (0, 10 * PAGE, PAGES * PAGE // 2, (PAGES - 1) * PAGE):
        filler = little / "filler"
        filler.write_bytes(bytes(room - free))
        with pytest.raises(HostProblem) as full:
            await at.whole(chain)
        assert full.value.reason is Reason.DISK_FULL
        with pytest.raises(HostProblem):
            await flat(at, chain)
        await at.settle_flat(chain[0].id, chain[0].digest)
        filler.unlink()
        assert sorted(path.name for path in little.iterdir()) == sorted(each.id for each in chain)
        await at.verify(chain)
    assert content((await at.whole(chain)).memory)["ram"] == rams[0]
