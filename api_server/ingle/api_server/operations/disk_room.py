"""Whether the host's file system can back what VMs are promised.

Disks take what is written to them, so together they may be promised more than there is: that is legal, and told. What
can't even begin is refused before anything changes.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ingle.api_server.model.check import Check
from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.spec import Defaults, Overcommit, size_text
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.disk_survey import DiskSurvey
from ingle.api_server.ports.engine import Vmm
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles

_REMEDY = "ingle df"
_LAST_BYTES = 1024 * 1024  # as host.reserve has it


class DiskRoom:
    """What is free where VMs' disks are, beside what they may still write."""

    def __init__(
        self,
        vms: VmStore,
        files: VmFiles,
        backends: Mapping[str, DiskBackend],
        survey: DiskSurvey,
        place: Path,
        defaults: Callable[[], Defaults],
    ) -> None:
        """The disks are below `place`."""
        self._vms = vms
        self._files = files
        self._backends = backends
        self._survey = survey
        self._place = place
        self._defaults = defaults

    async def for_new(self, backend: str, image_bytes: int, disk_bytes: int) -> str:
        """Answers what is to be told of a VM with such a disk, over an image that takes so much; empty when all is
        well. Raises HostProblem(DISK_FULL)."""
        copied = image_bytes if self._backends[backend].copies else 0
        what = f"a disk by {backend} takes {size_text(copied)} at once" if copied else "a VM's first writes"
        self._check_begin(copied, what)
        return await self._told(disk_bytes, f"a disk of {size_text(disk_bytes)}")

    async def for_growth(self, vm: Vm, disk_bytes: int) -> str:
        """The same of a VM whose disk is to have that size."""
        self._check_begin(0, "a disk that grows")
        return await self._told(max(0, disk_bytes - vm.settings.disk_bytes), f"a disk of {size_text(disk_bytes)}")

    def check_start(self) -> None:
        """Raise HostProblem(DISK_FULL) when a guest would stand still at its first writes."""
        self._check_begin(0, "a guest that boots")

    def check_wake(self) -> None:
        """The same of one that hibernates."""
        self._check_begin(0, "a guest that wakes")

    def check_snapshot(self, size_bytes: int) -> None:
        """Raise HostProblem(DISK_FULL) when there is no room for a snapshot that takes so much."""
        self._check_begin(size_bytes, f"a snapshot of {size_text(size_bytes)}")

    def check_memory(self, memory_bytes: int) -> None:
        """Raise HostProblem(DISK_FULL) when there is no room for so much of a guest's memory."""
        self._check_begin(memory_bytes, f"{size_text(memory_bytes)} of a guest's memory")

    def check_record(self) -> None:
        """Raise HostProblem(DISK_FULL) when what room there is to write a change down is for those that free some."""
        if self._free() < _LAST_BYTES:
            problem = f"the disk below {self._place} is full; what stops, deletes or prunes still can be done"
            raise HostProblem(Reason.DISK_FULL, problem, _REMEDY)

    async def check(self) -> Check:
        """What a doctor says about it."""
        promised, free = await self._promised(await self._vms.all()), self._free()
        told = f"VMs may still write {size_text(promised)}, and {size_text(free)} are free below {self._place}"
        if free < self._defaults().disk_floor_bytes:
            return Check("disk room", "fail", f"{told}: too little for a VM to be made or started", _REMEDY)
        return Check("disk room", "warn" if promised > free else "pass", told, _REMEDY if promised > free else "")

    def _check_begin(self, needed: int, what: str) -> None:
        floor, free = self._defaults().disk_floor_bytes, self._free()
        if free < needed + floor:
            raise HostProblem(
                Reason.DISK_FULL,
                f"{what}: {size_text(needed + floor)} must be free below {self._place}, and {size_text(free)} are "
                f"(disk_floor_bytes is {size_text(floor)})",
                _REMEDY,
            )

    async def _told(self, more: int, what: str) -> str:
        overcommit = self._defaults().disk_overcommit
        if overcommit is Overcommit.ALLOW:
            return ""
        promised, free = await self._promised(await self._vms.all()) + more, self._free()
        if promised <= free:
            return ""
        told = (
            f"{what}: VMs may then write {size_text(promised)} more, and {size_text(free)} are free below "
            f"{self._place}; when that is full, guests that write stand still"
        )
        if overcommit is Overcommit.REFUSE:
            raise HostProblem(Reason.DISK_FULL, f"{told} (disk_overcommit is refuse)", _REMEDY)
        return told

    async def _promised(self, vms: Iterable[Vm]) -> int:
        sizes = {
            self._backends[vm.settings.disk_backend].disk_path(self._files.paths(vm.id).state): vm.settings.disk_bytes
            for vm in vms
            if vm.settings.disk_backend in self._backends
        }
        taken = await self._survey.taken(list(sizes))
        return sum(max(0, size - taken[path]) for path, size in sizes.items())

    def _free(self) -> int:
        return self._survey.room(self._place).free_bytes


def likely_memory(vm: Vm, vmm: Vmm | None) -> int:
    """Bytes that a memory will take which is saved now, since what a guest has never touched takes none: as much as the
    VMM has by now, and no more than the guest may have; all of that where it has yet to wake. One that turns out to be
    larger is found out by writing it."""
    most = vm.settings.memory_bytes
    return most if vmm is None else min(most, vmm.usage().resident_bytes)
