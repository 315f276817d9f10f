"""One lock a VM, for as long as somebody needs it; and a VM whose VMM died is told to be dead."""

import asyncio
import errno
import gc
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.errors import GuestError, HostProblem, Reason
from ingle.api_server.model.guest import GuestIdentity, IdentityTaken
from ingle.api_server.model.operation import Operation, OperationKind, OperationState
from ingle.api_server.model.vm import Acceleration, LiveVmm, Vm, VmState
from ingle.api_server.operations import fleet, reboots
from ingle.api_server.operations.auto_start import AutoStart
from ingle.api_server.operations.keep_time import KeepTime
from ingle.api_server.operations.start_vm import StartPipelines, StartVm
from ingle.api_server.ports.engine import Engine, Vmm, VmPaths
from unit.api_server.vmms import ME, NOW, VM, ScriptedVmm, World, mine, world


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
        move, refusals = at.store.vms.move, iter((OSError("no space"), OSError("still none")))

        async def refuse_twice(vm_id: str, state: VmState, **facts: Any) -> Vm:
            for refusal in refusals:
                assert at.fleet.vmm(VM.id) is at.vmm, "until it is recorded, there is a VMM to be stopped"
                raise refusal
            return await move(vm_id, state, **facts)

        monkeypatch.setattr(at.store.vms, "move", refuse_twice)
        at.vmm.failure = "QEMU was killed by signal 9"
        at.vmm.gone.set()
        async with asyncio.timeout(20):
            while at.fleet.vmm(VM.id) is not None:
                await asyncio.sleep(0.01)
        vm = await at.store.vms.get(VM.id)
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
        _, boots = rebooting(at)
        at.vmm.restarts = True
        async with at.fleet.lock(VM.id):
            at.vmm.gone.set()
            await asyncio.sleep(0.05)  # until whoever watches waits for the lock
            stopping = await at.stopping.stop("op-stop", mine(VM.id), 1.0)
            await asyncio.sleep(0.05)
        assert (await stopping.result()).state is VmState.STOPPED
        assert (await restarted(at)).state is OperationState.SUCCEEDED
        assert boots == []
        assert await at.state() is VmState.STOPPED


async def test_a_vm_that_belongs_to_a_call_goes_with_it_and_is_not_started_again(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        _, boots = rebooting(at)
        await at.store.vms.kept_by_a_call(VM.id)
        at.vmm.restarts = True
        at.vmm.gone.set()
        async with asyncio.timeout(20):
            while at.fleet.vmm(VM.id) is not None:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert boots == []
        assert await at.store.operations.latest(10) == []


async def test_a_vm_that_can_not_be_started_again_tells_why(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        _, boots = rebooting(at, HostProblem(Reason.IN_USE, "port 80 is in use"))
        at.vmm.restarts = True
        at.vmm.gone.set()
        assert (await restarted(at)).state is OperationState.FAILED
        assert boots == [VM.id]
        vm = await at.store.vms.get(VM.id)
        assert vm.state is VmState.ERROR
        assert vm.error == "its guest rebooted, and it could not be started again: port 80 is in use"


async def test_a_start_after_a_reboot_that_somebody_cancels_is_told_by_the_vm(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        _, boots = rebooting(at, asyncio.CancelledError())
        at.vmm.restarts = True
        at.vmm.gone.set()
        assert (await restarted(at)).state is OperationState.CANCELLED
        assert boots == [VM.id]
        vm = await at.store.vms.get(VM.id)
        assert vm.state is VmState.ERROR
        assert vm.error == "its guest rebooted, and it could not be started again: that was cancelled"
        assert await at.store.journal.open_entries() == []


async def test_a_server_that_stops_before_a_guest_has_rebooted_leaves_that_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        start, _ = rebooting(at)
        begun = asyncio.Event()

        async def never(*_: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(start, "_start", never)
        at.vmm.restarts = True
        at.vmm.gone.set()
        async with asyncio.timeout(20):
            await begun.wait()
        await at.operations.close()
        assert (await restarted(at)).state is OperationState.CANCELLED
        assert await at.state() is VmState.STOPPED
        assert [entry.step for entry in await at.store.journal.open_entries()] == ["reboot"]


async def test_a_guest_that_reboots_for_ever_is_left_in_peace_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        start, boots = rebooting(at)
        for _ in range(reboots.MOST + 1):
            await at.fleet.rebooted(VM.id)
            await AutoStart(at.store.vms, at.fleet, start).run()
            async with asyncio.timeout(20):
                while at.fleet.reboots.known():
                    await asyncio.sleep(0)
        assert len(boots) == reboots.MOST
        vm = await at.store.vms.get(VM.id)
        assert vm.state is VmState.ERROR
        assert "it has done so 5 times within 5 minutes" in vm.error
        assert await at.store.journal.open_entries() == []


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
        await at.store.vms.move(VM.id, VmState.STARTING)
        vm = await at.store.vms.move(VM.id, VmState.RUNNING, vmm=LiveVmm(1, 1, Acceleration.TCG, NOW))
        _, boots = rebooting(at)
        vmm = Unreadable()
        at.fleet.attach(vm, cast("Vmm", vmm))
        vmm.gone.set()
        assert (await restarted(at)).state is OperationState.SUCCEEDED
        assert boots == [VM.id]


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.EIO, "it breaks"), HostProblem(Reason.NOT_A_REGULAR_FILE, "console.log is no regular file")],
)
async def test_a_log_that_can_not_be_bounded_keeps_nobody_from_looking_after_the_vm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(fleet, "_LOOKS", 1)
    rounds: list[int] = []
    enough = asyncio.Event()

    class Unbounded(ScriptedVmm):
        async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
            if timeout_seconds is None:
                return await super().wait_gone()
            await asyncio.sleep(0)
            return self.gone.is_set()

        def bound_logs(self) -> None:
            rounds.append(1)
            if len(rounds) == 3:
                enough.set()
            raise failure

    async with world(tmp_path, VmState.STOPPED) as at:
        await at.store.vms.move(VM.id, VmState.STARTING)
        vm = await at.store.vms.move(VM.id, VmState.RUNNING, vmm=LiveVmm(1, 1, Acceleration.TCG, NOW))
        at.fleet.attach(vm, cast("Vmm", Unbounded()))
        async with asyncio.timeout(20):
            await enough.wait()


async def test_a_reboot_while_the_server_stops_leaves_a_word_and_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        _, boots = rebooting(at)
        await at.operations.close()
        at.vmm.restarts = True
        at.vmm.gone.set()
        async with asyncio.timeout(20):
            while "not started again now" not in caplog.text:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        gc.collect()
        assert boots == []
        assert [entry.step for entry in await at.store.journal.open_entries()] == ["reboot"], "for the next one"
        assert "never retrieved" not in caplog.text


def rebooting(at: World, failure: BaseException | None = None) -> tuple[StartVm, list[str]]:
    """Starts VMs that reboot, as far as the engine's check, and remembers which."""
    boots: list[str] = []

    class Check:
        def check(self, paths: VmPaths, ports: object) -> None:
            boots.append(paths.state.name)
            if failure is not None:
                raise failure

    unused = ("resolve", "warm_starts", "wake")
    start = StartVm(
        operations=at.operations,
        vms=at.store.vms,
        journal=at.store.journal,
        clock=at.clock,
        fleet=at.fleet,
        files=at.files,
        engines={VM.settings.engine: cast("Engine", Check())},
        images=cast("Any", at.store.images),
        kernels=cast("Any", at.store.kernels),
        pipelines=StartPipelines((), (), (), ()),
        room=at.room,
        **cast("dict[str, Any]", dict.fromkeys(unused)),
    )
    at.fleet.boot_again = start.boot_again
    return start, boots


async def restarted(at: World) -> Operation:
    """The operation that a guest's reboot has begun, once it is over."""
    async with asyncio.timeout(20):
        while True:
            for operation in await at.operations.list(ME):
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
        vm = await at.store.vms.get(VM.id)
        at.fleet.attach(vm, cast("Vmm", LivingVmm()))
        with pytest.raises(GuestError, match="does not answer") as refused:
            async with at.guests.use(mine(VM.id)) as channel:
                await channel.ping()
        assert refused.value.remedy == f"ingle vm restart {vm.name}"


async def test_a_running_guest_is_told_the_time_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: asyncio.Queue[GuestIdentity] = asyncio.Queue()

    class Guest:
        async def take_identity(self, configuration: GuestIdentity) -> IdentityTaken:
            told.put_nowait(configuration)
            if told.qsize() == 1:
                raise GuestError(Reason.GUEST_UNREACHABLE, "it is busy")
            return IdentityTaken(-3600.0, clock_stepped=True)

    async with world(tmp_path, VmState.STOPPED) as at:
        monkeypatch.setattr(Dialler, "channel", lambda *_: Guest())
        at.fleet.watches = (KeepTime(at.store.vms, at.guests, at.clock).keep,)
        await at.store.vms.move(VM.id, VmState.STARTING)
        vm = await at.store.vms.move(VM.id, VmState.RUNNING)
        at.fleet.attach(vm, cast("Vmm", LivingVmm()))
        async with asyncio.timeout(20):
            while told.qsize() < 3:
                await asyncio.sleep(0.01)
        now = told.get_nowait()
        assert now.clock_unless_set_by_guest
        assert now.unix_nanoseconds == at.clock.unix_nanoseconds()


async def test_a_guest_that_sleeps_is_not_told_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class LivingVmm(ScriptedVmm):
        rounds = 0

        async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
            self.rounds += 1
            return self.rounds > 3

    def never(*_: object) -> object:
        raise AssertionError("it was asked")

    async with world(tmp_path, VmState.PAUSED) as at:
        monkeypatch.setattr(Dialler, "channel", never)
        vmm = LivingVmm()
        await KeepTime(at.store.vms, at.guests, at.clock).keep(VM.id, cast("Vmm", vmm))
        assert vmm.rounds == 4


async def test_a_guest_that_stands_still_again_and_again_is_told_of_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_LOOK_SECONDS", 0.002)
    monkeypatch.setattr(fleet, "_ROOM", 2**60)  # so nobody but this test lets it go on
    monkeypatch.setattr(fleet, "_SILENT_ROUNDS", 100)
    async with world(tmp_path, VmState.RUNNING) as at:
        told: asyncio.Queue[bool] = asyncio.Queue()

        async def tell(vm_id: str, *, stalled: bool) -> None:
            told.put_nowait(stalled)

        monkeypatch.setattr(at.store.vms, "tell_stall", tell)
        async with asyncio.timeout(20):
            for _ in range(10):
                at.vmm.stalled = not at.vmm.stalled
                await asyncio.sleep(0.02)
            at.vmm.stalled = True
            said = [await told.get()]
            while not said[-1]:
                said.append(await told.get())
        assert len(said) <= 2, "a time of silence is between two words"
        assert told.empty(), "and how it is by then is what is told"
