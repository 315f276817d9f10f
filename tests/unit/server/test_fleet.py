"""One lock a VM, for as long as somebody needs it; and a VM whose VMM died is told to be dead."""

import asyncio
import errno
import gc
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.errors import GuestError, HostProblem, Reason
from ingle.api_server.model.guest import Configured, GuestConfiguration
from ingle.api_server.model.operation import Operation, OperationKind, OperationState
from ingle.api_server.model.vm import Acceleration, Running, Vm, VmState
from ingle.api_server.operations import fleet
from ingle.api_server.operations.start_vm import StartPipelines, StartVm
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.ports.engine import Engine, Vmm, VmPaths
from unit.server.vmms import NOW, VM, ScriptedVmm, World, world


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


async def test_a_stop_in_the_middle_of_a_reboot_is_the_last_word(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        start, boots = rebooting(at)
        at.vmm.restarts = True
        stop = StopVm(at.operations, at.store, at.fleet, at.release, Dialler(), start)
        async with at.fleet.lock(VM.id):
            at.vmm.gone.set()
            await asyncio.sleep(0.05)  # until whoever watches waits for the lock
            stopping = await stop.stop("op-stop", VM.id, 1.0)
            await asyncio.sleep(0.05)
        assert (await stopping.result()).state is VmState.STOPPED
        assert (await restarted(at)).state is OperationState.SUCCEEDED
        assert boots == []
        assert await at.state() is VmState.STOPPED


async def test_a_vm_that_belongs_to_a_call_goes_with_it_and_is_not_started_again(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        _, boots = rebooting(at)
        await at.store.owned_by_a_call(VM.id)
        at.vmm.restarts = True
        at.vmm.gone.set()
        async with asyncio.timeout(20):
            while at.fleet.vmm(VM.id) is not None:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert boots == []
        assert await at.store.operations(10) == []


async def test_a_vm_that_can_not_be_started_again_tells_why(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        _, boots = rebooting(at, HostProblem(Reason.IN_USE, "port 80 is in use"))
        at.vmm.restarts = True
        at.vmm.gone.set()
        assert (await restarted(at)).state is OperationState.FAILED
        assert boots == [VM.id]
        vm = await at.store.vm(VM.id)
        assert vm.state is VmState.ERROR
        assert vm.error == "its guest rebooted, and it could not be started again: port 80 is in use"


async def test_a_server_that_stops_before_a_guest_has_rebooted_leaves_a_vm_that_tells_it(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        _, boots = rebooting(at, asyncio.CancelledError())
        at.vmm.restarts = True
        at.vmm.gone.set()
        assert (await restarted(at)).state is OperationState.CANCELLED
        assert boots == [VM.id]
        vm = await at.store.vm(VM.id)
        assert vm.state is VmState.ERROR
        assert vm.error == "its guest rebooted, and it could not be started again: that was cancelled"


async def test_whether_a_guest_rebooted_is_found_out_also_when_that_takes_two_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_RETRY_SECONDS", 0.01)

    class Unreadable(ScriptedVmm):
        tries = 0

        @property
        def restarts(self) -> bool:  # type: ignore[override]
            self.tries += 1
            if self.tries == 1:
                raise OSError(errno.EMFILE, "no descriptor is left")
            return True

    async with world(tmp_path, VmState.STOPPED) as at:
        await at.store.move_vm(VM.id, VmState.STARTING)
        vm = await at.store.move_vm(VM.id, VmState.RUNNING, running=Running(1, 1, Acceleration.TCG, NOW))
        _, boots = rebooting(at)
        vmm = Unreadable()
        at.fleet.attach(vm, cast("Vmm", vmm))
        vmm.gone.set()
        assert (await restarted(at)).state is OperationState.SUCCEEDED
        assert boots == [VM.id]


async def test_a_reboot_while_the_server_stops_leaves_a_word_and_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        _, boots = rebooting(at)
        await at.operations.close()
        at.vmm.restarts = True
        at.vmm.gone.set()
        async with asyncio.timeout(20):
            while "not started again" not in caplog.text:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        gc.collect()
        assert boots == []
        assert "never retrieved" not in caplog.text


def rebooting(at: World, failure: BaseException | None = None) -> tuple[StartVm, list[str]]:
    """Starts VMs that reboot, as far as the engine's check, and remembers which."""
    boots: list[str] = []

    class Check:
        def check(self, paths: VmPaths, ports: object) -> None:
            boots.append(paths.state.name)
            if failure is not None:
                raise failure

    unused = ("images", "kernels", "backends", "image_directory", "vm_directory", "network", "limits", "defaults")
    start = StartVm(
        operations=at.operations,
        store=at.store,
        fleet=at.fleet,
        files=at.files,
        engine=cast("Engine", Check()),
        pipelines=StartPipelines((), (), ()),
        **cast("dict[str, Any]", dict.fromkeys(unused)),
    )
    at.fleet.boot_again = start.boot_again
    return start, boots


async def restarted(at: World) -> Operation:
    """The operation that a guest's reboot has begun, once it is over."""
    async with asyncio.timeout(20):
        while True:
            for operation in await at.operations.list(10):
                if operation.kind is OperationKind.RESTART_VM and operation.state is not OperationState.RUNNING:
                    return operation
            await asyncio.sleep(0.01)


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
