"""Every state is thought of everywhere, and is no dead end."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingle.api_server.model.errors import Conflict, GuestError, HostProblem, NotFound, Reason, ToolFailed
from ingle.api_server.model.quota import Quota
from ingle.api_server.model.spec import VmChange
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.start_vm import StartPipelines, StartVm
from ingle.api_server.rpc import convert
from ingle.api_server.steps.delete import Delete
from ingle.api_server.steps.mark_starting import MarkStarting
from ingle.api_server.steps.record_running import RecordRunning
from ingle.api_server.steps.target import Start
from ingle.v1 import vm_pb2
from unit.api_server.recovering import recovery
from unit.api_server.sleeping import Resting, sleeping, waking
from unit.api_server.vmms import VM, ScriptedVmm, World, mine, world

ALL = pytest.mark.parametrize("state", VmState, ids=lambda state: state.value)
GONE = "gone"


class Killing:
    """An engine whose VMM ends when it is told to."""

    def __init__(self, vmm: ScriptedVmm) -> None:
        self._vmm = vmm

    def check(self, *_: object) -> None:
        """All is well."""

    async def kill_all(self, *_: object) -> None:
        self._vmm.gone.set()

    async def adopt(self, *_: object) -> ScriptedVmm:
        return self._vmm

    info = SimpleNamespace(saves=True)

    async def memory_key(self, *_: object) -> str:
        return "the only one"


class Launched:
    """The step of a start whose place this takes makes a process."""

    name = "launch"
    text = "…"

    async def run(self, target: Start) -> None:
        target.vmm = cast("Any", ScriptedVmm())


def verbs(at: World) -> Mapping[str, Callable[[], Awaitable[object]]]:
    """What a person can do about a VM."""
    at.vmm.obeys = True
    engine = cast("Any", Killing(at.vmm))
    engines = {VM.settings.engine: engine}
    start_steps = (MarkStarting(at.store.vms), Launched(), RecordRunning(at.store.vms, at.clock))
    pipelines = StartPipelines(make=(), start=start_steps, wake=(), leave_stopped=())
    wake = waking(at, engines, (Launched(),))
    unused: dict[str, Any] = dict.fromkeys(("resolve", "warm_starts"))
    start = StartVm(
        operations=at.operations,
        vms=at.store.vms,
        journal=at.store.journal,
        clock=at.clock,
        fleet=at.fleet,
        files=at.files,
        engines=engines,
        images=cast("Any", at.store.images),
        kernels=cast("Any", at.store.kernels),
        pipelines=pipelines,
        room=at.room,
        wake=wake,
        **unused,
    )
    stop = at.stopping
    delete = DeleteVm(
        at.operations,
        at.store.vms,
        at.store.journal,
        at.fleet,
        at.files,
        Delete(at.store.vms, at.files, engine, at.network, at.backends),
    )
    update = at.updating()
    sleep = sleeping(at, engines)

    async def done(verb: Awaitable[Any]) -> object:
        return await (await verb).result()

    return {
        "start": lambda: done(start.start("op-000000000001", mine(VM.id))),
        "stop": lambda: done(stop.stop("op-000000000002", mine(VM.id), 0.0)),
        "kill": lambda: done(stop.kill("op-000000000003", mine(VM.id), 9)),
        "pause": lambda: done(sleep.pause("op-000000000007", mine(VM.id))),
        "resume": lambda: done(wake.resume("op-000000000008", mine(VM.id))),
        "hibernate": lambda: done(sleep.hibernate("op-000000000009", mine(VM.id))),
        "wake": lambda: done(wake.wake("op-00000000000a", mine(VM.id))),
        "use": lambda: wake.waken(VM.id),
        "restart": lambda: done(at.between_boots(start).restart("op-00000000000b", mine(VM.id), 0.0)),
        "delete": lambda: done(delete.delete("op-000000000004", mine(VM.id), force=False)),
        "delete --force": lambda: done(delete.delete("op-000000000005", mine(VM.id), force=True)),
        "update --memory": lambda: done(update.update("op-000000000006", mine(VM.id), VmChange(memory_bytes=2**30))),
    }


async def end(at: World) -> VmState | str:
    try:
        return await at.state()
    except NotFound:
        return GONE


@pytest.mark.parametrize(
    ("state", "ways"),
    [
        (VmState.CREATING, {("delete --force",): GONE}),
        (VmState.STOPPED, {("start",): VmState.RUNNING, ("delete",): GONE}),
        (VmState.STARTING, {("delete --force",): GONE}),
        (
            VmState.RUNNING,
            {
                (): VmState.RUNNING,
                ("stop", "start"): VmState.RUNNING,
                ("pause", "resume"): VmState.RUNNING,
                ("pause", "use"): VmState.RUNNING,
                ("hibernate", "start"): VmState.RUNNING,
                ("hibernate", "wake"): VmState.RUNNING,
                ("hibernate", "use"): VmState.RUNNING,
                ("hibernate", "stop", "start"): VmState.RUNNING,
                ("hibernate", "kill", "delete"): GONE,
                ("hibernate", "delete --force"): GONE,
                ("delete --force",): GONE,
            },
        ),
        (
            VmState.PAUSED,
            {
                ("start",): VmState.RUNNING,
                ("resume",): VmState.RUNNING,
                ("wake",): VmState.RUNNING,
                ("hibernate", "wake"): VmState.RUNNING,
                ("use",): VmState.RUNNING,
                ("stop", "start"): VmState.RUNNING,
                ("kill", "delete"): GONE,
                ("delete --force",): GONE,
            },
        ),
        # One whose memory is lost: nothing is saved in this world.
        (VmState.HIBERNATED, {("stop", "start"): VmState.RUNNING, ("kill", "delete"): GONE, ("delete --force",): GONE}),
        (VmState.STOPPING, {("stop", "start"): VmState.RUNNING, ("kill", "delete"): GONE, ("delete --force",): GONE}),
        (VmState.ERROR, {("start",): VmState.RUNNING, ("delete",): GONE}),
    ],
    ids=lambda value: value.value if isinstance(value, VmState) else "",
)
async def test_from_every_state_verbs_lead_to_running_or_gone(
    tmp_path: Path, state: VmState, ways: Mapping[Sequence[str], VmState | str]
) -> None:
    for number, (way, where) in enumerate(ways.items()):
        (tmp_path / str(number)).mkdir()
        async with world(tmp_path / str(number), state) as at:
            can = verbs(at)
            for verb in way:
                await can[verb]()
            assert await end(at) == where, way


@ALL
async def test_only_what_is_idle_is_changed_or_deleted_without_force(tmp_path: Path, state: VmState) -> None:
    async with world(tmp_path, state) as at:
        can = verbs(at)
        for verb in ("update --memory", "delete"):
            if state.idle:
                await can[verb]()
                continue
            with pytest.raises(Conflict, match=state.value):
                await can[verb]()


@ALL
async def test_a_server_that_starts_leaves_no_vm_in_passing(tmp_path: Path, state: VmState) -> None:
    async with world(tmp_path, state) as at:
        await at.fleet.detach(VM.id)  # what the former server knew
        await recovery(at, tmp_path, Killing(at.vmm)).run()
        passing = {VmState.STARTING, VmState.STOPPING}
        assert await at.state() is (VmState.STOPPED if state in passing else state)
        assert (at.fleet.vmm(VM.id) is not None) == (await at.state()).alive


@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.PAUSED])
async def test_a_guest_does_what_the_store_says_also_when_a_server_was_killed_before_it_did(
    tmp_path: Path, state: VmState
) -> None:
    async with world(tmp_path, state) as at:
        await at.fleet.detach(VM.id)
        at.vmm.moves = state is not VmState.RUNNING
        await recovery(at, tmp_path, Killing(at.vmm)).run()
        assert at.vmm.moves == (state is VmState.RUNNING)


class NeverResumes(ScriptedVmm):
    async def resume(self) -> None:
        raise ToolFailed(Reason.VMM_FAILED, "it won't")


async def test_a_guest_that_can_not_go_on_is_adopted_all_the_same_and_can_be_stopped(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        await at.fleet.detach(VM.id)
        at.vmm = NeverResumes()
        await recovery(at, tmp_path, Killing(at.vmm)).run()
        await verbs(at)["stop"]()
        assert await at.state() is VmState.STOPPED


class NeverPauses(ScriptedVmm):
    async def pause(self) -> None:
        raise ToolFailed(Reason.VMM_FAILED, "it won't")


async def test_a_guest_that_can_not_be_paused_runs_and_says_why(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.fleet.attach(await at.store.vms.get(VM.id), NeverPauses())
        pausing = await sleeping(at, {VM.settings.engine: Killing(at.vmm)}).pause("op-000000000009", mine(VM.id))
        with pytest.raises(ToolFailed, match="it won't"):
            await pausing.result()
        vm = await at.store.vms.get(VM.id)
        assert (vm.state, vm.error) == (VmState.RUNNING, "it could not fall asleep: it won't")
        assert await at.store.journal.open_entries() == []
        assert convert.vm(vm).sleep_error == vm.error
        assert convert.vm(vm).error == ""


async def test_an_engine_that_saves_no_memory_is_told_before_anything_changes(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        engine = Killing(at.vmm)
        engine.info = SimpleNamespace(saves=False)
        with pytest.raises(HostProblem, match="can't save") as refused:
            await sleeping(at, {VM.settings.engine: engine}).hibernate("op-000000000009", mine(VM.id))
        assert refused.value.remedy == "ingle vm pause demo"
        assert await at.store.operations.latest() == []


class Restless(Resting):
    async def rest(self) -> None:
        raise GuestError(Reason.GUEST_RESTLESS, "something would not stand still")


@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.PAUSED])
async def test_a_guest_that_would_not_rest_does_what_it_did_and_says_why(tmp_path: Path, state: VmState) -> None:
    async with world(tmp_path, state) as at:
        at.vmm.moves = state is VmState.RUNNING
        sleep = sleeping(at, {VM.settings.engine: Killing(at.vmm)}, Restless())
        with pytest.raises(GuestError, match="would not stand still"):
            await (await sleep.hibernate("op-000000000009", mine(VM.id))).result()
        vm = await at.store.vms.get(VM.id)
        assert (vm.state, vm.error) == (state, "it could not fall asleep: something would not stand still")
        assert at.vmm.moves == (state is VmState.RUNNING)


class NeverSaves(ScriptedVmm):
    async def save(self, directory: Path) -> None:
        (directory / "half").touch()
        raise HostProblem(Reason.DISK_FULL, "no space left")


@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.PAUSED])
async def test_a_guest_whose_memory_can_not_be_saved_does_what_it_did_and_says_why(
    tmp_path: Path, state: VmState
) -> None:
    async with world(tmp_path, state) as at:
        vmm = NeverSaves()
        vmm.moves = state is VmState.RUNNING
        at.fleet.attach(await at.store.vms.get(VM.id), vmm)
        asleep = await sleeping(at, {VM.settings.engine: Killing(at.vmm)}).hibernate("op-000000000009", mine(VM.id))
        with pytest.raises(HostProblem, match="no space left"):
            await asleep.result()
        vm = await at.store.vms.get(VM.id)
        assert (vm.state, vm.error) == (state, "it could not fall asleep: no space left")
        assert vmm.moves == (state is VmState.RUNNING)
        assert not at.paths.memory.exists()
        assert not at.paths.memory.with_name("memory.new").exists()
        assert await at.store.journal.open_entries() == []


async def test_a_wake_beyond_the_quota_is_refused_and_the_vm_hibernates_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        can = verbs(at)
        await can["hibernate"]()
        monkeypatch.setattr(at.store.vms, "_quota_of", lambda owner: Quota(memory_bytes=0))
        for verb in ("wake", "use", "start", "restart"):
            with pytest.raises(Conflict, match="quota of memory"):
                await can[verb]()
            assert await at.state() is VmState.HIBERNATED
        assert (await at.store.vms.get(VM.id)).error.startswith("it could not wake: quota of memory")
        monkeypatch.undo()
        await can["wake"]()
        assert await at.state() is VmState.RUNNING


@ALL
async def test_running_facts_are_kept_exactly_while_there_is_a_process(tmp_path: Path, state: VmState) -> None:
    async with world(tmp_path, state) as at:
        assert ((await at.store.vms.get(VM.id)).vmm is not None) == state.alive


def test_no_state_is_two_things() -> None:
    assert not [state for state in VmState if state.alive and state.idle]
    assert all(state.alive for state in VmState if state.reachable)


def test_the_contract_has_every_state_and_no_other() -> None:
    told = {vm_pb2.VmState.Name(convert.vm(replace(VM, state=state)).state) for state in VmState}
    assert {"VM_STATE_UNSPECIFIED", *told} == set(vm_pb2.VmState.keys())
