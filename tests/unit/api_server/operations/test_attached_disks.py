"""Disks that the host has to attach: at a start, until the VMM is gone, whatever happens in between."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingle.api_server import pipeline
from ingle.api_server.adapters.disk import CopyDisk, Qcow2Disk, ReflinkDisk, SnapshotDisk
from ingle.api_server.adapters.helper import AbsentDevices
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.snapshot_files import LocalSnapshotFiles
from ingle.api_server.config import load
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import HostProblem, NotFound, Reason
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.inspect_vm import InspectVm
from ingle.api_server.operations.start_vm import StartPipelines
from ingle.api_server.plugged import disk_backends
from ingle.api_server.ports.disk import DiskChanges
from ingle.api_server.ports.store.journal import JournalEntry
from ingle.api_server.steps.attach_disk import AttachDisk, DiskBases
from ingle.api_server.steps.delete import Delete
from ingle.api_server.steps.target import Start, VmTarget
from unit.api_server.recovering import recovery
from unit.api_server.vmms import IMAGE, KERNEL, THE_VM, VM, ScriptedVmm, World, mine, world

OP_ID = "op-0123456789ab"
NO_HELPER = HostProblem(Reason.DEPENDENCY_MISSING, "no helper")


def target(at: World) -> Start:
    return Start(OP_ID, VM.id, at.paths, VM, IMAGE, KERNEL, bytes(32))


def bases(at: World) -> DiskBases:
    root = at.paths.state.parent
    images = DirectoryLibrary(root / "images", Tools(root))
    return DiskBases(images, at.store.snapshots, LocalSnapshotFiles(root / "snapshots"))


class Gone:
    """An engine without VMMs; the disk is still attached when it is asked to end them."""

    def __init__(self, at: World) -> None:
        self._at = at
        self.attached_when_asked: set[str] | None = None

    def ending(self, _: object) -> None:
        """Nobody knows."""

    async def kill_all(self, _: object) -> None:
        self.attached_when_asked = set(self._at.shelf.attached)

    async def adopt(self, *_: object) -> None:
        return None


class LivesOn:
    """An engine whose VMMs all live."""

    async def adopt(self, *_: object) -> ScriptedVmm:
        return ScriptedVmm()


def test_a_disk_is_attached_after_the_vm_is_claimed_and_before_its_vmm_is_launched() -> None:
    nothing: dict[str, Any] = dict.fromkeys(_PORTS)
    nothing["placement"] = SimpleNamespace(acceleration=None)
    names = [step.name for step in StartPipelines.of(**nothing).start]
    assert names.index("mark-starting") < names.index("attach-disk") < names.index("launch")


_PORTS = (
    *("vms", "files", "engines", "placement", "vmms", "media", "network", "names", "dialler", "images", "sockets"),
    *("kernels", "backends", "bases", "clock", "memories", "cache"),
)


async def test_the_step_attaches_and_its_undo_needs_the_id_alone(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        step, start = AttachDisk(at.backends, at.store.vms, bases(at)), target(at)
        await step.run(start)
        assert at.shelf.attached == {VM.id}
        assert start.attached_disk.path == at.paths.state / "disk"
        await step.undo(VmTarget(OP_ID, VM.id, at.paths))
        assert at.shelf.attached == set()
        await at.store.vms.delete(VM.id)
        await step.undo(VmTarget(OP_ID, VM.id, at.paths))


async def test_half_an_attachment_is_undone(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        step = AttachDisk(at.backends, at.store.vms, bases(at))

        class HelperDies:
            """After it has done its work, and before it answers; the next one answers again."""

            name, text = step.name, step.text

            async def run(self, start: Start) -> None:
                at.shelf.failure = NO_HELPER
                try:
                    await step.run(start)
                finally:
                    at.shelf.failure = None

            async def undo(self, start: VmTarget) -> None:
                assert await at.store.journal.open_entries() == [
                    JournalEntry(OP_ID, THE_VM, step.name)
                ]  # before it acted
                await step.undo(start)

        with pytest.raises(HostProblem):
            await pipeline.run([HelperDies()], target(at), at.store.journal, lambda *_: ())
        assert at.shelf.attached == set()
        assert await at.store.journal.open_entries() == []


async def test_a_vm_that_ends_gives_its_disk_back_however_it_ends(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.shelf.attached = {VM.id}
        at.vmm.obeys = True
        await (await at.stopping.kill(OP_ID, mine(VM.id), 9)).result()
        assert at.shelf.attached == set()


async def test_a_deleted_vm_gives_its_disk_back_once_nobody_has_it_open(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        at.shelf.attached = {VM.id}
        engine = Gone(at)
        step = Delete(at.store.vms, at.files, cast("Any", engine), at.network, at.backends)
        delete = DeleteVm(at.operations, at.store.vms, at.store.journal, at.fleet, at.files, step)
        await (await delete.delete(OP_ID, mine(VM.id), force=False)).result()
        assert engine.attached_when_asked == {VM.id}
        assert at.shelf.attached == set()


async def test_a_helper_that_does_not_answer_keeps_no_vm_from_being_stopped_or_deleted(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.shelf.attached = {VM.id}
        at.shelf.failure = NO_HELPER
        at.vmm.obeys = True
        assert (await (await at.stopping.kill(OP_ID, mine(VM.id), 9)).result()).state is VmState.STOPPED
        step = Delete(at.store.vms, at.files, cast("Any", Gone(at)), at.network, at.backends)
        delete = DeleteVm(at.operations, at.store.vms, at.store.journal, at.fleet, at.files, step)
        with pytest.raises(HostProblem):
            await (await delete.delete("op-000000000001", mine(VM.id), force=False)).result()
        assert not at.paths.state.exists()
        with pytest.raises(NotFound):
            await at.store.vms.get(VM.id)
        # The device is all that is left, and the next server removes it.
        at.shelf.failure = None
        await recovery(at, tmp_path, Gone(at), step).run()
        assert at.shelf.attached == set()
        assert await at.store.journal.open_entries() == []


async def test_a_server_that_starts_has_the_disks_of_exactly_the_vms_that_run(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.shelf.attached = {"f" * 12}
        await recovery(at, tmp_path, LivesOn()).run()
        assert at.shelf.attached == {VM.id}


async def test_a_disk_of_a_vm_that_ended_unseen_is_given_back(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.shelf.attached = {VM.id}
        await recovery(at, tmp_path, Gone(at)).run()
        assert await at.state() is VmState.ERROR
        assert at.shelf.attached == set()


async def test_a_start_that_a_server_did_not_survive_is_undone_by_the_next(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        step = AttachDisk(at.backends, at.store.vms, bases(at))
        await at.store.vms.move(VM.id, VmState.STARTING)
        await at.store.journal.intend(JournalEntry(OP_ID, THE_VM, step.name))
        await step.run(target(at))
        await recovery(at, tmp_path, Gone(at), step).run()
        assert await at.state() is VmState.STOPPED
        assert at.shelf.attached == set()
        assert await at.store.journal.open_entries() == []


async def test_a_server_starts_though_the_disks_helper_does_not_answer(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.shelf.failure = NO_HELPER
        await recovery(at, tmp_path, LivesOn()).run()
        assert await at.state() is VmState.RUNNING


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (DiskChanges(2**30, 2**33, 2**40), ""),
        (DiskChanges(2**30, 2**33, 2**20), "that has 1 MiB left, and 7 GiB of changes may still come"),
        (DiskChanges(2**30, 2**33, 0, overflowed=True), "its disk is lost"),
    ],
)
async def test_a_disk_that_fills_up_is_a_problem_of_its_vm(tmp_path: Path, changes: DiskChanges, problem: str) -> None:
    async with world(tmp_path, VmState.RUNNING) as at:
        at.shelf.changed = changes
        inspect = InspectVm(at.store.vms, at.fleet, at.guests, at.files, at.backends, at.clock)
        health, stats = await inspect.health(mine(VM.id)), await inspect.stats(mine(VM.id))
        assert health.changes == stats.changes == changes
        assert problem in health.problem
        assert ("disk" in health.problem) is bool(problem)
        at.shelf.failure = NO_HELPER
        health = await inspect.health(mine(VM.id))
        assert health.changes is None


def test_what_any_vmm_opens_comes_first_for_a_whole_machine_and_qcow2_for_a_user(tmp_path: Path) -> None:
    env = {name: str(tmp_path) for name in ("HOME", "XDG_RUNTIME_DIR")}
    of_user, of_system = (disk_backends(load(env, system=system), Tools(tmp_path)) for system in (False, True))
    assert list(of_user) == ["qcow2", "reflink", "dm-snapshot", "copy"]
    assert list(of_system) == ["reflink", "dm-snapshot", "qcow2", "copy"]
    kinds = {ReflinkDisk, SnapshotDisk, Qcow2Disk, CopyDisk}
    assert {type(backend) for backend in of_system.values()} == kinds


async def test_a_users_own_server_has_no_devices_and_says_whose_they_are(tmp_path: Path) -> None:
    problem = await SnapshotDisk(AbsentDevices()).usable(tmp_path, tmp_path)
    assert "root helper of a system install" in problem
    assert "sudo ingle system install" in problem
