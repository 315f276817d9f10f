"""What lies on the host's disks, and what they have still to take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ingle.api_server.model.caller import Caller
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.warm_starts import Listed, WarmStarts
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.disk_survey import DiskSurvey, Measure, Survey
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles


class UseKind(Enum):
    """Names as in `ingle.v1.DiskUseKind`, without its prefix."""

    VM_DISKS = 1
    VM_LOGS = 2
    IMAGES = 3
    KERNELS = 4
    CACHES = 5
    SERVER_LOGS = 6
    DATABASE = 7
    OTHER = 8
    SNAPSHOTS = 10
    WARM_MEMORY = 9
    VM_MEMORY = 11
    IMAGE_LAYERS = 12


@dataclass(frozen=True, slots=True)
class Use:
    """What the files of one kind take, in bytes, and what gives how much of that back."""

    kind: UseKind
    count: int
    apparent: int
    allocated: int
    reclaimable: int = 0
    command: str = ""


@dataclass(frozen=True, slots=True)
class VmUse:
    """What a VM's files take, in bytes."""

    vm: Vm
    allocated: int
    shared: int
    logs: int
    memory: int


@dataclass(frozen=True, slots=True)
class FileSystem:
    """One of the host's. `promised`: how much VMs could still write there."""

    path: Path
    size: int
    free: int
    promised: int


@dataclass(frozen=True, slots=True)
class Usage:
    """All of it; `whole` False: there were more files than are looked at."""

    uses: Sequence[Use]
    file_systems: Sequence[FileSystem]
    vms: Sequence[VmUse]
    whole: bool


@dataclass(frozen=True, slots=True)
class Places:
    """Where the server's files are."""

    state: Path
    cache: Path
    warm: Path
    layers: Path
    images: Path
    kernels: Path
    vms: Path
    snapshots: Path
    database: Sequence[Path]
    server_logs: Sequence[Path]


class DiskUsage:
    """Sizes of all that is there."""

    def __init__(
        self,
        vms: VmStore,
        snapshots: SnapshotStore,
        images: Images,
        kernels: Kernels,
        files: VmFiles,
        backends: Mapping[str, DiskBackend],
        survey: DiskSurvey,
        places: Places,
        warm_starts: WarmStarts,
    ) -> None:
        self._vms = vms
        self._snapshots = snapshots
        self._images = images
        self._kernels = kernels
        self._files = files
        self._backends = backends
        self._survey = survey
        self._places = places
        self._warm_starts = warm_starts

    async def usage(self, caller: Caller, *, all_users: bool = False) -> Usage:
        """Of VMs, of those that are the caller's, or everybody's. Raises Conflict(NOT_ADMIN)."""
        told = await self._vms.of(caller, all_users=all_users)
        vms = await self._vms.all()
        told_snapshots = [each.id for each in await self._snapshots.of(caller, all_users=all_users)]
        snapshots = [each.id for each in await self._snapshots.all()]
        images, kernels = await self._images.all(), await self._kernels.all()
        warm = await self._warm_starts.listed(caller, all_users=caller.admin)
        places = self._places
        survey = await self._survey.measure(
            [
                *(path for vm in vms for path in (self._disk(vm), self._memory(vm), self._state(vm))),
                *(places.snapshots / snapshot_id for snapshot_id in snapshots),
                *(places.images / image.id for image in images),
                *(places.kernels / kernel.id for kernel in kernels),
                *(places.warm / each.memory.key for each in warm),
                *(places.state, places.cache, places.warm, places.layers),
                *places.database,
                *places.server_logs,
            ],
            unopened=places.database,
        )
        found = survey.measures
        uses = [
            *self._of_vms(told, found),
            _counted(UseKind.SNAPSHOTS, [found[places.snapshots / snapshot_id] for snapshot_id in told_snapshots]),
            _library(
                UseKind.IMAGES,
                [found[places.images / image.id] for image in images],
                [found[places.images / image.id] for image in await self._images.unused(caller, named=True)],
            ),
            _library(
                UseKind.KERNELS,
                [found[places.kernels / kernel.id] for kernel in kernels],
                [found[places.kernels / kernel.id] for kernel in await self._kernels.unused(caller, named=True)],
            ),
            _use(UseKind.CACHES, found[places.cache].without(found[places.warm]).without(found[places.layers])),
            _of_layers(found[places.layers]),
            _of_warm(warm, _sum(found[places.warm / each.memory.key] for each in warm)),
            _use(UseKind.SERVER_LOGS, _sum(found[path] for path in places.server_logs)),
            _use(UseKind.DATABASE, _sum(found[path] for path in places.database)),
            self._other(vms, snapshots, [image.id for image in images], [kernel.id for kernel in kernels], found),
        ]
        each = [
            VmUse(
                vm=vm,
                allocated=self._own(vm, found),
                shared=self._shared(vm, found),
                logs=self._logs(vm, found).allocated,
                memory=found[self._memory(vm)].allocated,
            )
            for vm in told
        ]
        return Usage(uses, self._file_systems(vms, survey), each, survey.whole)

    def _state(self, vm: Vm) -> Path:
        return self._files.paths(vm.id).state

    def _disk(self, vm: Vm) -> Path:
        return self._backends[vm.settings.disk_backend].disk_path(self._state(vm))

    def _memory(self, vm: Vm) -> Path:
        return self._files.paths(vm.id).memory

    def _logs(self, vm: Vm, found: Mapping[Path, Measure]) -> Measure:
        return found[self._state(vm)].without(found[self._disk(vm)]).without(found[self._memory(vm)])

    def _own(self, vm: Vm, found: Mapping[Path, Measure]) -> int:
        disk = found[self._disk(vm)]
        return disk.allocated - disk.shared

    def _shared(self, vm: Vm, found: Mapping[Path, Measure]) -> int:
        if self._backends[vm.settings.disk_backend].copies:
            return 0
        image = found.get(self._places.images / vm.settings.image_id, Measure())
        return found[self._disk(vm)].shared or image.allocated

    def _of_vms(self, vms: Sequence[Vm], found: Mapping[Path, Measure]) -> Sequence[Use]:
        logs = _sum(self._logs(vm, found) for vm in vms)
        apparent = sum(vm.settings.disk_bytes for vm in vms)
        memories = [found[self._memory(vm)] for vm in vms if vm.state is VmState.HIBERNATED]
        return (
            Use(UseKind.VM_DISKS, len(vms), apparent, sum(self._own(vm, found) for vm in vms)),
            Use(UseKind.VM_LOGS, len(vms), logs.apparent, logs.allocated),
            _counted(UseKind.VM_MEMORY, memories),
        )

    def _other(
        self,
        vms: Iterable[Vm],
        snapshots: Iterable[str],
        images: Iterable[str],
        kernels: Iterable[str],
        found: Mapping[Path, Measure],
    ) -> Use:
        """What is below the directories, and of nothing that is known."""
        places = self._places
        known = _sum(
            [
                *(found[self._state(vm)] for vm in vms),
                *(found[places.snapshots / snapshot_id] for snapshot_id in snapshots),
                *(found[places.images / image_id] for image_id in images),
                *(found[places.kernels / kernel_id] for kernel_id in kernels),
                *(found[path] for path in (*places.database, *places.server_logs)),
            ]
        )
        return _use(UseKind.OTHER, found[places.state].without(known))

    def _file_systems(self, vms: Iterable[Vm], survey: Survey) -> list[FileSystem]:
        promised = sum(max(0, vm.settings.disk_bytes - self._own(vm, survey.measures)) for vm in vms)
        with_disks = self._survey.room(self._places.vms)
        rooms = {
            with_disks.device: FileSystem(self._places.vms, with_disks.size_bytes, with_disks.free_bytes, promised)
        }
        for path in (self._places.state, self._places.images, self._places.kernels, self._places.cache):
            room = self._survey.room(path)
            rooms.setdefault(room.device, FileSystem(path, room.size_bytes, room.free_bytes, 0))
        return list(rooms.values())


def _library(kind: UseKind, all_of_them: Sequence[Measure], unused: Sequence[Measure]) -> Use:
    total, free = _sum(all_of_them), _sum(unused).allocated
    command = f"ingle {kind.name[:-1].lower()} prune --all" if free else ""
    return Use(kind, len(all_of_them), total.apparent, total.allocated, free, command)


def _of_warm(memories: Sequence[Listed], measure: Measure) -> Use:
    """What is being made just now is nobody's yet, and not told."""
    free = sum(each.memory.allocated_bytes for each in memories if not each.vms)
    command = "ingle image prune --warm --all" if free else ""
    return Use(UseKind.WARM_MEMORY, len(memories), measure.apparent, measure.allocated, free, command)


def _counted(kind: UseKind, measures: Sequence[Measure]) -> Use:
    total = _sum(measures)
    return Use(kind, len(measures), total.apparent, total.allocated)


def _use(kind: UseKind, measure: Measure) -> Use:
    return Use(kind, measure.files, measure.apparent, measure.allocated)


def _of_layers(measure: Measure) -> Use:
    command = "ingle image cache prune" if measure.allocated else ""
    return Use(UseKind.IMAGE_LAYERS, measure.files, measure.apparent, measure.allocated, measure.allocated, command)


def _sum(measures: Iterable[Measure]) -> Measure:
    return sum(measures, start=Measure())
