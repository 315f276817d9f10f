"""A guest of the fake engine's that was saved goes on elsewhere, as the one that it was."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.errors import GuestError, HostProblem, IngleError, Reason
from ingle.api_server.model.vm import Acceleration, Kernel, Vm, VmSettings, VmState
from ingle.api_server.ports.disk import Disk, DiskFormat
from ingle.api_server.ports.engine import LaunchPlan, Vmm, VmPaths
from ingle.testing.fake_engine import MEMORY_FILE, FakeEngine
from small_disk import fill, make_room, small_disk

ENGINE = FakeEngine("red")
OLD, NEW = b"o" * 32, b"n" * 32
KERNEL = Kernel("k", (), "6.1", 1, (), datetime(2026, 1, 1, tzinfo=UTC), "a test")
SETTINGS = VmSettings("", "", "k", "", "red", Acceleration.TCG, "copy", 1, 2**29, 2**30)


def plan(directory: Path, token: bytes, memory: Path | None = None) -> LaunchPlan:
    vm = Vm("0" * 12, "demo", datetime(2026, 1, 1, tzinfo=UTC), SETTINGS, VmState.STARTING)
    directory.mkdir()
    disk = Disk(directory / "disk", DiskFormat.RAW)
    return LaunchPlan(vm, VmPaths(directory, directory), Path("vmlinux"), disk, Acceleration.TCG, token, memory=memory)


@asynccontextmanager
async def running(plan: LaunchPlan, engine: FakeEngine = ENGINE) -> AsyncIterator[Vmm]:
    vmm = await engine.launch(plan)
    try:
        await vmm.boot()
        await vmm.ready()
        yield vmm
    finally:
        vmm.signal(signal.SIGKILL)
        await vmm.wait_gone()
        await vmm.close()


async def answers(vmm: Vmm, token: bytes) -> bool:
    dialler = Dialler()
    try:
        await dialler.channel(replace(vmm.agent, token=token)).ping()
    except GuestError:
        return False
    finally:
        dialler.close()
    return True


async def saved(root: Path) -> Path:
    memory = root / "memory"
    memory.mkdir(mode=0o700)
    async with running(plan(root / "source", OLD)) as vmm:
        await vmm.pause()
        await vmm.save(memory)
        await vmm.resume()
        assert await answers(vmm, OLD), "a saved guest does not go on"
    return memory


async def test_a_saved_guest_is_opened_by_what_opened_it_and_by_nothing_else(tmp_path: Path) -> None:
    memory = await saved(tmp_path)
    assert [(file.name, file.stat().st_mode & 0o777) for file in memory.iterdir()] == [(MEMORY_FILE, 0o600)]
    await ENGINE.share(plan(tmp_path / "sharing", NEW).vm, memory)
    for name in ("first", "second"):
        async with running(plan(tmp_path / name, NEW, memory)) as vmm:
            assert vmm.agent.token == NEW
            assert await answers(vmm, OLD)
            assert not await answers(vmm, NEW)


@pytest.mark.parametrize("harm", [b"", b"x", None])
async def test_a_memory_that_is_damaged_or_none_starts_nothing(tmp_path: Path, harm: bytes | None) -> None:
    memory = await saved(tmp_path)
    file = memory / MEMORY_FILE
    if harm is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + harm)
    with pytest.raises(IngleError) as refusal:
        await ENGINE.launch(plan(tmp_path / "fork", NEW, memory))
    assert refusal.value.reason is Reason.VMM_FAILED


async def test_a_memory_of_another_engine_starts_nothing(tmp_path: Path) -> None:
    memory = await saved(tmp_path)
    with pytest.raises(IngleError, match="of engine red"):
        await FakeEngine("blue").launch(plan(tmp_path / "fork", NEW, memory))


@pytest.mark.skipif(os.getuid() != 0, reason="mounts")
async def test_a_full_disk_leaves_no_memory_and_a_guest_that_goes_on(tmp_path: Path) -> None:
    async with running(plan(tmp_path / "source", OLD)) as vmm:
        await vmm.pause()
        with small_disk(tmp_path / "small", "64k") as memory:
            fill(memory)
            with pytest.raises(HostProblem) as refusal:
                await vmm.save(memory)
            assert refusal.value.reason is Reason.DISK_FULL
            make_room(memory)
            assert not list(memory.iterdir())
            await vmm.save(memory)
        await vmm.resume()
        assert await answers(vmm, OLD)


async def test_a_memory_is_for_the_same_machine(tmp_path: Path) -> None:
    vm = plan(tmp_path / "vm", OLD).vm
    larger = replace(vm, settings=replace(SETTINGS, memory_bytes=2**30))
    key = await ENGINE.memory_key(vm, KERNEL, Acceleration.TCG)
    assert key == await ENGINE.memory_key(replace(vm, id="1" * 12, name="other"), KERNEL, Acceleration.TCG)
    assert key != await ENGINE.memory_key(larger, KERNEL, Acceleration.TCG)
