"""One lock a VM, for as long as somebody needs it; and a VM whose VMM died is told to be dead."""

import asyncio
import gc
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import Configured, GuestConfiguration
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations import fleet
from ingle.api_server.ports.engine import Vmm
from unit.server.vmms import VM, ScriptedVmm, world


async def test_a_vm_has_one_lock_however_often_it_is_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        async with at.fleet.lock(VM.id):
            waiting = asyncio.create_task(at.fleet.lock(VM.id).acquire())
            gc.collect()
            await asyncio.sleep(0)
            assert at.fleet.lock(VM.id).locked()
            assert not waiting.done()
        assert await waiting
        waiting.cancel()


async def test_a_lock_that_nobody_uses_is_forgotten_also_when_the_vm_came_to_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        async with at.fleet.lock("never-made"):
            lock = weakref.ref(at.fleet.lock("never-made"))
        gc.collect()
        assert lock() is None


async def test_the_end_of_a_vmm_that_can_not_be_recorded_at_once_is_recorded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_RETRY_SECONDS", 0.01)
    async with world(tmp_path, VmState.RUNNING) as at:
        move, refusals = at.store.move_vm, iter((OSError("no space"), OSError("still none")))

        async def refuse_twice(vm_id: str, state: VmState, **facts: Any) -> Vm:
            for refusal in refusals:
                assert at.fleet.vmm(VM.id) is at.vmm, "until it is recorded, there is a VMM to be stopped"
                raise refusal
            return await move(vm_id, state, **facts)

        monkeypatch.setattr(at.store, "move_vm", refuse_twice)
        at.vmm.failure = "QEMU was killed by signal 9"
        at.vmm.gone.set()
        async with asyncio.timeout(20):
            while at.fleet.vmm(VM.id) is not None:
                await asyncio.sleep(0.01)
        vm = await at.store.vm(VM.id)
        assert (vm.state, vm.error) == (VmState.ERROR, "QEMU was killed by signal 9")


async def test_a_vm_whose_guest_rebooted_is_started_again_once_it_is_recorded_as_stopped(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        begun: asyncio.Queue[tuple[str, VmState]] = asyncio.Queue()

        async def boot_again(vm_id: str) -> None:
            begun.put_nowait((vm_id, await at.state()))

        at.fleet.boot_again = boot_again
        at.vmm.restarts = True
        at.vmm.gone.set()
        async with asyncio.timeout(20):
            assert await begun.get() == (VM.id, VmState.STOPPED)


class LivingVmm(ScriptedVmm):
    """Its time passes quickly."""

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.gone.wait(), timeout_seconds and 0.01)
        return self.gone.is_set()


async def test_a_guest_that_runs_and_does_not_answer_is_told_with_what_leads_on(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        vm = await at.store.vm(VM.id)
        at.fleet.attach(vm, cast("Vmm", LivingVmm()))
        with pytest.raises(GuestError, match="does not answer") as refused:
            async with at.fleet.conversation(vm) as channel:
                await channel.ping()
        assert refused.value.remedy == f"ingle vm restart {vm.name}"


async def test_a_running_guest_is_told_the_time_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: asyncio.Queue[GuestConfiguration] = asyncio.Queue()

    class Guest:
        async def configure(self, configuration: GuestConfiguration) -> Configured:
            told.put_nowait(configuration)
            if told.qsize() == 1:
                raise GuestError(Reason.GUEST_UNREACHABLE, "it is busy")
            return Configured(-3600.0, clock_stepped=True)

    async with world(tmp_path, VmState.STOPPED) as at:
        monkeypatch.setattr(Dialler, "channel", lambda *_: Guest())
        at.fleet.attach(await at.store.vm(VM.id), cast("Vmm", LivingVmm()))
        async with asyncio.timeout(20):
            while told.qsize() < 3:
                await asyncio.sleep(0.01)
        now = told.get_nowait()
        assert now.clock_unless_set_by_guest
        assert now.unix_nanoseconds is not None
        assert abs(now.unix_nanoseconds / 1e9 - time.time()) < 60
