"""What the host's file system can't back is refused, or told."""

from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.adapters.disk import CopyDisk, Qcow2Disk
from ingle.api_server.adapters.disk_survey import HostDiskSurvey
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.spec import Defaults, Overcommit, VmChange
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.disk_room import DiskRoom, likely_memory
from ingle.api_server.ports.engine import VmmUsage
from unit.api_server.vmms import ME, VM, ScriptedVmm, Shelf, World, mine, world

_SMALL, _HUGE = 2**20, 2**60  # of what any disk has


def room(at: World, **defaults: object) -> DiskRoom:
    place = at.paths.state.parent
    backends = at.backends | {"copy": CopyDisk(), "qcow2": Qcow2Disk(Tools(place))}
    found = replace(Defaults(), **defaults)  # type: ignore[arg-type]
    return DiskRoom(at.store.vms, at.files, backends, HostDiskSurvey(), place, lambda: found)


async def test_a_disk_that_fits_is_not_talked_of(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        assert await room(at).for_new("copy", _SMALL, _SMALL) == ""
        assert await room(at).for_growth(VM, 2 * VM.settings.disk_bytes) == ""
        room(at).check_start()
        assert (await room(at).check()).status == "pass"


async def test_what_is_needed_at_once_and_is_not_there_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        with pytest.raises(HostProblem, match="a disk by copy takes") as refused:
            await room(at).for_new("copy", _HUGE, _HUGE)
        assert refused.value.reason is Reason.DISK_FULL
        assert await room(at, disk_overcommit=Overcommit.ALLOW).for_new("qcow2", _HUGE, _HUGE) == ""
        floor = room(at, disk_floor_bytes=_HUGE)
        for refuse in (floor.for_new("qcow2", _SMALL, _SMALL), floor.for_growth(VM, _SMALL)):
            with pytest.raises(HostProblem, match="disk_floor_bytes"):
                await refuse
        with pytest.raises(HostProblem, match="a guest that boots"):
            floor.check_start()
        with pytest.raises(HostProblem, match="a guest that wakes"):
            floor.check_wake()
        assert (await floor.check()).status == "fail"


async def test_of_a_memory_no_more_is_expected_than_its_guest_has_by_now(tmp_path: Path) -> None:
    class Small(ScriptedVmm):
        def usage(self) -> VmmUsage:
            return VmmUsage(0.0, 17 << 20)

    class Large(ScriptedVmm):
        def usage(self) -> VmmUsage:
            return VmmUsage(0.0, VM.settings.memory_bytes * 2)

    assert likely_memory(VM, Small()) == 17 << 20
    assert likely_memory(VM, Large()) == likely_memory(VM, None) == VM.settings.memory_bytes
    async with world(tmp_path, VmState.RUNNING) as at:
        with pytest.raises(HostProblem, match="17 MiB of a guest's memory"):
            room(at, disk_floor_bytes=_HUGE).check_memory(17 << 20)


async def test_more_than_there_is_may_be_promised_and_is_told(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        assert "stand still" in await room(at).for_new("qcow2", _SMALL, _HUGE)
        assert "stand still" in await room(at).for_growth(VM, _HUGE)
        assert await room(at, disk_overcommit=Overcommit.ALLOW).for_new("qcow2", _SMALL, _HUGE) == ""
        with pytest.raises(HostProblem, match="disk_overcommit is refuse"):
            await room(at, disk_overcommit=Overcommit.REFUSE).for_new("qcow2", _SMALL, _HUGE)


async def test_what_a_disk_has_taken_is_not_promised_once_more(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        disk = at.shelf.disk_path(at.paths.state)
        before = (await room(at).check()).detail
        disk.parent.mkdir(exist_ok=True)
        disk.write_bytes(bytes(range(256)) * 2**20)
        assert "VMs may still write 1 GiB" in before
        assert "VMs may still write 768 MiB" in (await room(at).check()).detail


class _Growing(Shelf):
    async def grow(self, directory: Path, size_bytes: int) -> None:
        """Nothing is taken by it."""


async def test_a_growth_that_can_not_be_backed_is_made_with_a_warning_that_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path, VmState.STOPPED) as at:
        updating = at.updating({at.shelf.name: _Growing()})
        running = await updating.update("op-0123456789ac", mine(VM.id), VmChange(disk_bytes=2**43))
        assert (await running.result()).settings.disk_bytes == 2**43
        (warning,) = running.operation.warnings
        assert "VMs may then write" in warning
        assert (await at.store.operations.get(running.operation.id, ME)).warnings == (warning,)
