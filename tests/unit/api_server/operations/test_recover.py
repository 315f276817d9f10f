"""A starting server and what an earlier one left."""

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.vmm import console
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.caller import ROOT
from ingle.api_server.model.errors import Conflict, Reason, ToolFailed
from ingle.api_server.model.operation import Operation, OperationKind, OperationState
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.ports.engine import Ending, VmPaths
from ingle.api_server.ports.store.journal import JournalEntry
from ingle.api_server.steps.delete import Delete
from ingle.api_server.steps.reboot import Reboot
from ingle.api_server.steps.reserve import Reserve
from unit.api_server.recovering import recovery
from unit.api_server.vmms import IMAGE, ME, NOW, THE_VM, VM, mine, world

OTHER = replace(VM, id="ba9876543210", name="other")


class FailingForOne:
    """An engine that can't kill what belongs to VM."""

    async def kill_all(self, paths: VmPaths) -> None:
        if paths.state.name == VM.id:
            raise ToolFailed(Reason.VMM_FAILED, "it does not die")


async def test_a_vm_that_can_not_be_recovered_does_not_keep_the_others_down(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPING) as at:
        await at.store.vms.insert(OTHER, bytes(32))
        await at.store.vms.move(OTHER.id, VmState.STARTING)
        await recovery(at, tmp_path, FailingForOne()).run()
        assert await at.state() is VmState.STOPPING
        assert (await at.store.vms.get(OTHER.id)).state is VmState.STOPPED


class KillsNothing:
    """An engine without VMMs."""

    async def kill_all(self, paths: VmPaths) -> None:
        """There are none."""


async def test_a_step_of_another_version_is_left_for_it_and_the_others_are_undone(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        unknown = JournalEntry("op-000000000001", THE_VM, "levitate")
        await at.store.journal.intend(unknown)
        await at.store.journal.intend(JournalEntry("op-000000000001", THE_VM, "delete"))
        delete = Delete(at.store.vms, at.files, cast("Any", KillsNothing()), at.network, at.backends)
        await recovery(at, tmp_path, KillsNothing(), delete).run()
        assert await at.store.vms.all() == []
        assert await at.store.journal.open_entries() == [unknown]


async def test_of_an_operation_that_makes_many_the_complete_stays_and_the_half_made_goes(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        made = [replace(VM, id=f"{number:012x}", name=f"fork-{number}") for number in range(3)]
        forking = Operation("op-000000000001", OperationKind.CREATE_VM, OperationState.RUNNING, NOW, VM.id)
        await at.store.operations.save(forking)
        for vm in made:
            await at.store.journal.intend(JournalEntry(forking.id, Resource(ResourceKind.VM, vm.id), "reserve"))
            await at.store.vms.insert(vm, bytes(32))
        await at.store.journal.close(forking.id, Resource(ResourceKind.VM, made[0].id))
        await at.store.journal.close(forking.id, Resource(ResourceKind.VM, made[1].id))
        await recovery(at, tmp_path, KillsNothing(), Reserve(at.store.vms)).run()
        assert {vm.name for vm in await at.store.vms.all()} == {VM.name, "fork-0", "fork-1"}
        assert await at.store.journal.open_entries() == []
        failure = (await at.store.operations.get(forking.id, ME)).failure
        assert failure is not None
        assert failure.message.endswith(f"stays: vm {made[0].id}, vm {made[1].id}")
        assert await at.store.journal.kept(forking.id) == []


@pytest.mark.parametrize(
    ("kept", "state"),
    [
        ((), OperationState.FAILED),
        ((THE_VM,), OperationState.SUCCEEDED),
        ((Resource(ResourceKind.IMAGE, IMAGE.id),), OperationState.FAILED),
        ((Resource(ResourceKind.VM, OTHER.id),), OperationState.FAILED),
        ((Resource(ResourceKind.IMAGE, IMAGE.id), THE_VM), OperationState.SUCCEEDED),
    ],
    ids=["nothing", "its VM", "the image it needs", "another VM", "image and VM"],
)
async def test_a_server_killed_between_the_last_step_and_the_word_of_it_has_done_it(
    tmp_path: Path, kept: Sequence[Resource], state: OperationState
) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        creation = Operation("op-000000000001", OperationKind.CREATE_VM, OperationState.RUNNING, NOW, VM.id)
        await at.store.operations.save(creation)
        for resource in kept:
            await at.store.journal.close(creation.id, resource)
        await recovery(at, tmp_path, KillsNothing()).run()
        assert (await at.store.operations.get(creation.id, ME)).state is state
        assert await at.state() is VmState.STOPPED


async def test_a_pull_is_done_with_what_it_has_published_whenever_its_server_is_killed(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        pull = Operation("op-000000000001", OperationKind.PULL_IMAGE, OperationState.RUNNING, NOW, "debian:trixie")
        creation = Operation("op-000000000002", OperationKind.CREATE_VM, OperationState.RUNNING, NOW, OTHER.id)
        for operation in (pull, creation):
            await at.store.operations.save(operation)
            await at.store.images.add(IMAGE, "debian:trixie", ME, operation.id)
        await recovery(at, tmp_path, KillsNothing()).run()
        assert (await at.store.operations.get(pull.id, ME)).state is OperationState.SUCCEEDED
        failure = (await at.store.operations.get(creation.id, ME)).failure
        assert failure is not None
        assert failure.message.endswith(f"stays: image {IMAGE.id}")


async def test_a_step_of_a_kind_that_this_version_does_not_know_is_left_for_another(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        of_an_image = JournalEntry("op-000000000001", Resource(ResourceKind.IMAGE, VM.id), "delete")
        await at.store.journal.intend(of_an_image)
        delete = Delete(at.store.vms, at.files, cast("Any", KillsNothing()), at.network, at.backends)
        await recovery(at, tmp_path, KillsNothing(), delete).run()
        assert await at.store.journal.open_entries() == [of_an_image]
        assert await at.state() is VmState.STOPPED


async def test_what_lost_vms_rest_on_stays_however_often_a_server_starts_with_another_database(tmp_path: Path) -> None:
    """Their database was moved away, say; the disks are below `vms`, and nothing without their images."""
    library, lost = DirectoryLibrary(tmp_path / "library", Tools(tmp_path)), tmp_path / "vms" / "fedcba987654"
    async with world(tmp_path, VmState.STOPPED) as at:
        async with library.workspace("op-000000000001") as workspace:
            (workspace / "rootfs.ext4").touch()
            image, _ = await library.seal(workspace)
            await library.publish(workspace, image)
        lost.mkdir()
        await at.operations.begin("op-000000000002", ROOT, OperationKind.START_VM, _nothing)
        await recovery(at, tmp_path, KillsNothing()).run()
        assert library.path(image).is_dir()
        lost.rmdir()
        await recovery(at, tmp_path, KillsNothing()).run()
        assert not library.path(image).exists(), "nobody needs it, and nobody knows it"


async def _nothing(_: object) -> None:
    """It is an operation all the same."""


async def test_leftovers_that_can_not_be_removed_do_not_keep_the_server_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(DirectoryLibrary, "sweep", refuse)
    async with world(tmp_path, VmState.STOPPED) as at:
        running = Operation("op-000000000001", OperationKind.PULL_IMAGE, OperationState.RUNNING, NOW)
        await at.store.operations.save(running)
        await recovery(at, tmp_path, KillsNothing()).run()
        assert (await at.store.operations.get(running.id, ME)).state is OperationState.FAILED


class LosesVmms:
    """An engine whose VMMs have ended, and said how or not."""

    def __init__(self, ending: Ending | None) -> None:
        self._ending = ending

    async def adopt(self, *_: object) -> None:
        """It is gone."""

    def ending(self, paths: VmPaths) -> Ending | None:
        return self._ending

    async def kill_all(self, paths: VmPaths) -> None:
        """There are none."""


async def test_a_vm_of_an_engine_that_is_not_there_lives_on_and_is_told_and_deleted(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        await at.fleet.detach(VM.id)  # what the former server knew
        await at.store.vms.insert(OTHER, bytes(32))
        await at.store.vms.move(OTHER.id, VmState.STARTING)
        starting = recovery(at, tmp_path, KillsNothing(), engines=())
        await starting.run()
        vm, other = await at.store.vms.get(VM.id), await at.store.vms.get(OTHER.id)
        assert (vm.state, other.state) == (VmState.RUNNING, VmState.STOPPED)
        with pytest.raises(Conflict, match="VM 'demo' is of engine scripted; this server has none") as refused:
            at.fleet.running_vmm(vm)
        assert "ingle vm delete --force demo" in refused.value.remedy
        step = Delete(at.store.vms, at.files, cast("Any", KillsNothing()), at.network, at.backends)
        delete = DeleteVm(at.operations, at.store.vms, at.store.journal, at.fleet, at.files, step)
        await (await delete.delete("op-000000000001", mine(VM.id), force=True)).result()
        assert [vm.id for vm in await at.store.vms.all()] == [OTHER.id]


async def test_a_vm_that_ended_is_seen_to_have_whatever_its_engine(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        await at.fleet.detach(VM.id)
        await recovery(at, tmp_path, LosesVmms(Ending()), engines=(), lives=False).run()
        assert await at.state() is VmState.STOPPED


@pytest.mark.parametrize(
    ("ending", "state", "error", "boots"),
    [
        (None, VmState.ERROR, "its VMM ended while no server was there to see it", 0),
        (Ending("the guest's kernel panicked"), VmState.ERROR, "the guest's kernel panicked", 0),
        (Ending(), VmState.STOPPED, "", 0),
        (Ending(restarts=True), VmState.STOPPED, "", 1),
    ],
    ids=["unknown", "panic", "poweroff", "reboot"],
)
async def test_a_guest_that_ends_itself_while_no_server_runs_has_ended_as_it_said(
    tmp_path: Path, ending: Ending | None, state: VmState, error: str, boots: int
) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        await at.fleet.detach(VM.id)  # what the former server knew
        await recovery(at, tmp_path, LosesVmms(ending)).run()
        vm = await at.store.vms.get(VM.id)
        assert (vm.state, vm.error) == (state, error)
        assert at.fleet.reboots.known() == [VM.id] * boots


async def test_a_calls_vm_whose_guest_reboots_while_no_server_runs_is_not_started_again(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        await at.fleet.detach(VM.id)
        await at.store.vms.kept_by_a_call(VM.id)
        await recovery(at, tmp_path, LosesVmms(Ending(restarts=True))).run()
        assert await at.state() is VmState.STOPPED
        assert at.fleet.reboots.known() == []


async def test_a_guest_that_was_about_to_boot_again_when_the_server_was_killed_is_started_by_the_next(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        await at.store.journal.intend(JournalEntry("op-000000000001", THE_VM, "reboot"))
        await recovery(at, tmp_path, KillsNothing(), Reboot(at.fleet.rebooted)).run()
        assert at.fleet.reboots.known() == [VM.id]
        entries = [JournalEntry(op_id, THE_VM, "reboot")] if (op_id := at.fleet.reboots.op_id(VM.id)) else []
        assert await at.store.journal.open_entries() == entries, "until it has booted"


@pytest.mark.parametrize(
    ("said", "ending"),
    [
        (b"login: ", None),
        (b"[   9.1] reboot: Restarting system\n", Ending(restarts=True)),
        (b"[   9.1] reboot: Restarting system with command 'power off'\n", Ending()),
        (b"[   9.1] reboot: Power down\n", Ending()),
        (b"[   9.1] reboot: Restarting system\n" + b"it goes on\n" * 1000, None),
        (b"[   9.1] Kernel panic - not syncing: Oops\n", Ending("the guest's kernel panicked: Oops")),
    ],
)
def test_how_a_guest_ended_is_in_the_last_words_of_this_boot(
    tmp_path: Path, said: bytes, ending: Ending | None
) -> None:
    paths = VmPaths(tmp_path, tmp_path)
    paths.console_log.write_bytes(b"[   8.0] reboot: Power down\n")
    console.mark_start(paths)
    with paths.console_log.open("ab") as guest:
        guest.write(said)
    assert console.ending(paths) == ending
