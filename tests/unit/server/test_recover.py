"""A starting server and what an earlier one left."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.qemu import console
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.model.operation import Operation, OperationKind, OperationState
from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.engine import Ending, VmPaths
from ingle.api_server.ports.store import JournalEntry
from ingle.api_server.steps.delete import Delete
from ingle.api_server.steps.reboot import Reboot
from unit.server.vmms import NOW, VM, recovery, world

OTHER = replace(VM, id="ba9876543210", name="other")


class FailingForOne:
    """An engine that can't kill what belongs to VM."""

    async def kill_all(self, paths: VmPaths) -> None:
        if paths.state.name == VM.id:
            raise ToolFailed(Reason.VMM_FAILED, "it does not die")


async def test_a_vm_that_can_not_be_recovered_does_not_keep_the_others_down(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPING) as at:
        await at.store.insert_vm(OTHER, bytes(32))
        await at.store.move_vm(OTHER.id, VmState.STARTING)
        await recovery(at, tmp_path, FailingForOne()).run()
        assert await at.state() is VmState.STOPPING
        assert (await at.store.vm(OTHER.id)).state is VmState.STOPPED


class KillsNothing:
    """An engine without VMMs."""

    async def kill_all(self, paths: VmPaths) -> None:
        """There are none."""


async def test_a_step_of_another_version_is_left_for_it_and_the_others_are_undone(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        unknown = JournalEntry("op-000000000001", VM.id, "levitate")
        await at.store.intend(unknown)
        await at.store.intend(JournalEntry("op-000000000001", VM.id, "delete"))
        delete = Delete(at.store, at.files, cast("Any", KillsNothing()), at.network, at.backends)
        await recovery(at, tmp_path, KillsNothing(), delete).run()
        assert await at.store.vms() == []
        assert await at.store.open_entries() == [unknown]


async def test_what_lost_vms_rest_on_stays_however_often_a_server_starts_with_another_database(tmp_path: Path) -> None:
    """Their database was moved away, say; the disks are below `vms`, and nothing without their images."""
    library, lost = DirectoryLibrary(tmp_path / "library", Tools(tmp_path)), tmp_path / "vms" / "fedcba987654"
    async with world(tmp_path, VmState.STOPPED) as at:
        async with library.workspace("op-000000000001") as workspace:
            (workspace / "rootfs.ext4").touch()
            image = await library.seal(workspace)
            await library.publish(workspace, image)
        lost.mkdir()
        await at.operations.begin("op-000000000002", OperationKind.START_VM, _nothing)
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
        await at.store.save_operation(running)
        await recovery(at, tmp_path, KillsNothing()).run()
        assert (await at.store.operation(running.id)).state is OperationState.FAILED


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
        begun: list[str] = []

        async def boot_again(vm_id: str) -> None:
            begun.append(vm_id)

        await at.fleet.detach(VM.id)  # what the former server knew
        at.fleet.boot_again = boot_again
        await recovery(at, tmp_path, LosesVmms(ending)).run()
        vm = await at.store.vm(VM.id)
        assert (vm.state, vm.error) == (state, error)
        assert begun == [VM.id] * boots


async def test_a_calls_vm_whose_guest_reboots_while_no_server_runs_is_not_started_again(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        begun: list[str] = []

        async def boot_again(vm_id: str) -> None:
            begun.append(vm_id)

        await at.fleet.detach(VM.id)
        await at.store.owned_by_a_call(VM.id)
        at.fleet.boot_again = boot_again
        await recovery(at, tmp_path, LosesVmms(Ending(restarts=True))).run()
        assert await at.state() is VmState.STOPPED
        assert begun == []


async def test_a_guest_that_was_about_to_boot_again_when_the_server_was_killed_is_started_by_the_next(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        begun: list[str] = []

        async def boot_again(vm_id: str) -> None:
            begun.append(vm_id)

        at.fleet.boot_again = boot_again
        await at.store.intend(JournalEntry("op-000000000001", VM.id, "reboot"))
        await recovery(at, tmp_path, KillsNothing(), Reboot(at.fleet.rebooted)).run()
        assert begun == [VM.id]
        assert await at.store.open_entries() == []


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
