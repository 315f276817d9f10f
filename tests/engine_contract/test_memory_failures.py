"""A memory that can't be written or read: the guest that is there goes on, and none that is another one begins."""

import asyncio
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.host import files
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed
from integration.engine_guests import SAID, SAYS, Guest, Guests, Saved, processes_in, saved
from small_disk import fill, make_room, small_disk

_SPARE_BYTES = 2**24


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def turn_a_bit(file: Path) -> None:
    """Of the middle of all that is not zeros."""
    with file.open("r+b") as opened:
        opened.seek(os.lseek(opened.fileno(), file.stat().st_size // 2, os.SEEK_DATA))
        at, byte = opened.tell(), opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte[0] ^ 1]))


def names_in(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


async def refused(guests: Guests, kept: Saved, **changes: int) -> str:
    """Why nothing comes of a memory; and no process does."""
    plan = await guests.plan(memory=kept.memory, disk=kept.disk)
    plan = replace(plan, vm=replace(plan.vm, settings=replace(plan.vm.settings, **changes)))  # type: ignore[arg-type]
    with pytest.raises(ToolFailed) as refusal:
        await guests.engine.launch(plan)
    assert refusal.value.reason is Reason.VMM_FAILED
    assert not processes_in(plan.paths.state)
    return refusal.value.message


@pytest.mark.parametrize("harm", [cut, turn_a_bit, Path.unlink])
async def test_a_damaged_memory_starts_nothing(guests: Guests, kept: Saved, harm: Callable[[Path], None]) -> None:
    async def each_file_is_missed(names: frozenset[str]) -> None:
        assert names_in(kept.memory) == names | {"seal"}
        for file in kept.memory.iterdir():
            content = file.read_bytes()
            harm(file)
            assert "the memory in" in await refused(guests, kept)
            file.write_bytes(content)

    await each_file_is_missed(guests.kind.saved)
    await guests.engine.share((await guests.plan(memory=kept.memory)).vm, kept.memory)
    await each_file_is_missed(guests.kind.shared)
    async with guests.running(await guests.plan(memory=kept.memory, disk=kept.disk)) as guest:
        assert await guest.run(SAYS) == SAID


async def test_a_memory_of_another_machine_starts_nothing(guests: Guests, kept: Saved) -> None:
    assert guests.kind.of_another_machine in await refused(guests, kept, memory_bytes=2**29)


async def test_what_is_no_memory_of_the_engines_starts_nothing(guests: Guests, kept: Saved, tmp_path: Path) -> None:
    assert "seal: No such file or directory" in await refused(guests, replace(kept, memory=tmp_path))
    (kept.memory / "seal").write_text('{"version": 1, "files": {"others": [0, 0]}}')
    assert re.search(r"is not \w+'s: others", await refused(guests, kept))


@pytest.mark.skipif(os.getuid() != 0, reason="mounts")
async def test_a_full_disk_leaves_no_memory_and_a_guest_that_goes_on(
    source: Guest, guests: Guests, tmp_path: Path
) -> None:
    await source.vmm.pause()
    with small_disk(tmp_path / "small", "16m") as small:
        for _ in range(2):
            with pytest.raises(HostProblem) as refusal:
                await source.vmm.save(small)
            assert refusal.value.reason is Reason.DISK_FULL
            assert not list(small.iterdir())
    await source.vmm.resume()
    assert await source.run(SAYS) == SAID
    await source.vmm.pause()
    kept = await saved(source, tmp_path / "kept")
    room = sum(file.stat().st_blocks * 512 for file in kept.memory.iterdir()) + _SPARE_BYTES
    with small_disk(tmp_path / "small", str(room)) as small:
        memory = small / "memory"
        memory.mkdir()
        for file in kept.memory.iterdir():
            files.copy_sparse(file, memory / file.name)
        fill(small)
        if guests.kind.saved == guests.kind.shared:
            await guests.engine.share((await guests.plan(memory=memory)).vm, memory)
        else:
            with pytest.raises(HostProblem) as refusal:
                await guests.engine.share((await guests.plan(memory=memory)).vm, memory)
            assert refusal.value.reason is Reason.DISK_FULL
        assert names_in(memory) == guests.kind.saved | {"seal"}
        make_room(small)
        async with guests.running(await guests.plan(memory=memory, disk=kept.disk)) as guest:
            assert await guest.run(SAYS) == SAID


async def test_a_save_that_is_given_up_leaves_no_memory_and_a_guest_that_can_be_saved(
    source: Guest, guests: Guests, tmp_path: Path
) -> None:
    memory = tmp_path / "given-up"
    memory.mkdir()
    await source.vmm.pause()
    for delay in (0.0, 0.005, 0.02, 0.05):
        saving = asyncio.create_task(source.vmm.save(memory))
        await asyncio.sleep(delay)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert not list(memory.iterdir())
    kept = await saved(source, tmp_path / "kept")
    await source.vmm.resume()
    assert await source.run(SAYS) == SAID
    async with guests.running(await guests.plan(memory=kept.memory, disk=kept.disk)) as guest:
        assert await guest.run(SAYS) == SAID


async def test_what_is_given_up_leaves_no_process_and_the_memory_as_it_was(guests: Guests, kept: Saved) -> None:
    plan = await guests.plan(memory=kept.memory, disk=kept.disk)

    async def launch() -> None:
        """In vain in any case."""
        vmm = await guests.engine.launch(plan)
        vmm.signal(signal.SIGKILL)
        await vmm.wait_gone()
        await vmm.close()

    for delay in (0.0, 0.005, 0.01, 0.02):
        for act in (launch(), guests.engine.share(plan.vm, kept.memory)):
            task = asyncio.create_task(act)
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not processes_in(plan.paths.state)
            assert names_in(kept.memory) == guests.kind.saved | {"seal"}
    async with guests.running(await guests.plan(memory=kept.memory, disk=kept.disk)) as guest:
        assert await guest.run(SAYS) == SAID
