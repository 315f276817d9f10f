"""A virtual machine as ingle remembers it, and the only moves its state may make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from ingle.api_server.model.auto_start import NOT_STARTED
from ingle.api_server.model.caller import ROOT, Caller, called
from ingle.api_server.model.errors import Conflict, Reason
from ingle.api_server.model.healthcheck import NO_HEALTHCHECK
from ingle.api_server.model.idleness import NEVER
from ingle.api_server.model.image_config import Healthcheck, ImageConfig
from ingle.api_server.model.network import USER_NETWORK, PublishedPort
from ingle.api_server.model.rates import UNLIMITED, DiskRates
from ingle.api_server.model.workload import Workload


class VmState(Enum):
    """Where a VM is in its life.

    What operations want to know of a state is asked of it, so that a new one is thought of here and nowhere else."""

    CREATING = "creating"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    HIBERNATED = "hibernated"
    STOPPING = "stopping"
    ERROR = "error"

    @property
    def alive(self) -> bool:
        """Whether a VMM process is recorded as the VM's, and is looked for by a server that starts."""
        return self in _ALIVE

    @property
    def up(self) -> bool:
        """Whether it has, or is about to have, processors, memory and ports of the host."""
        return self in _UP

    @property
    def idle(self) -> bool:
        """Whether it has neither a process nor memory that is kept: its machine may change, and deleting it takes
        nothing from a guest that was in the middle of something."""
        return self in _IDLE

    @property
    def asleep(self) -> bool:
        """Whether its guest stands still until somebody wants something of it."""
        return self in _ASLEEP

    @property
    def reachable(self) -> bool:
        """Whether its guest can be asked anything. One that stands still never answers."""
        return self is VmState.RUNNING


_ALIVE = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.STOPPING})
_UP = _ALIVE | {VmState.STARTING}
_IDLE = frozenset({VmState.STOPPED, VmState.ERROR})
_ASLEEP = frozenset({VmState.PAUSED, VmState.HIBERNATED})


class Acceleration(Enum):
    """How guest instructions run. AUTO is a wish; a running VM has KVM or TCG."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class Init(Enum):
    """What is PID 1 of a guest: ingle's agent, or what the image has, with the agent beside it."""

    AGENT = "agent"
    IMAGE = "image"


class BootMode(Enum):
    """How a new VM's guest begins. AUTO is a wish: from the memory of a guest that has booted, where there is one."""

    AUTO = "auto"
    WARM = "warm"
    COLD = "cold"


_LONG_AGO = datetime.fromtimestamp(0, UTC)

_MOVES: Mapping[VmState, frozenset[VmState]] = {
    VmState.CREATING: frozenset({VmState.STOPPED, VmState.STARTING}),
    VmState.STOPPED: frozenset({VmState.STARTING, VmState.ERROR}),
    # What wakes is paused once its memory is loaded; until then it may fail, and hibernates again.
    VmState.STARTING: frozenset({VmState.RUNNING, VmState.PAUSED, VmState.STOPPED, VmState.HIBERNATED, VmState.ERROR}),
    VmState.RUNNING: frozenset({VmState.PAUSED, VmState.STOPPING, VmState.STOPPED, VmState.ERROR}),
    VmState.PAUSED: frozenset({VmState.RUNNING, VmState.HIBERNATED, VmState.STOPPING, VmState.STOPPED, VmState.ERROR}),
    VmState.HIBERNATED: frozenset({VmState.STARTING, VmState.STOPPED, VmState.ERROR}),
    # Back again while nobody has asked the guest.
    VmState.STOPPING: frozenset({VmState.STOPPED, VmState.RUNNING, VmState.PAUSED, VmState.ERROR}),
    VmState.ERROR: frozenset({VmState.STARTING, VmState.STOPPED}),
}


def check_move(name: str, old: VmState, new: VmState) -> None:
    """Raise Conflict(WRONG_STATE) unless a VM may go from `old` to `new`."""
    if new not in _MOVES[old]:
        raise Conflict(Reason.WRONG_STATE, f"VM {name!r} is {old.value}; it can't become {new.value}")


def outdates_memory(old: VmState, new: VmState) -> bool:
    """Whether what was saved of a guest's memory before such a move is of no use after it: its disk may be another one
    then. Of one that wakes it is used up as soon as its guest may go on."""
    if VmState.HIBERNATED in {old, new}:
        return new in _IDLE
    return new in {VmState.STARTING, VmState.RUNNING} or (old is VmState.STARTING and new is VmState.PAUSED)


@dataclass(frozen=True, slots=True)
class VmSettings:
    """All that was asked for of a VM, with nothing left open: a VmSpec, resolved."""

    image_id: str
    image_name: str
    kernel_id: str
    kernel_name: str
    engine: str
    acceleration: Acceleration
    disk_backend: str
    vcpus: int
    memory_bytes: int
    disk_bytes: int
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[PublishedPort, ...] = ()
    network: str = USER_NETWORK
    nat: bool = True
    init: Init = Init.AGENT
    ssh_keys: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    pause_after: int = NEVER
    """Seconds that nobody has used it, after which it is paused."""

    hibernate_after: int = NEVER
    """The same of being hibernated; of a VM that is paused, since when it is."""

    delete_after: int = NEVER
    """The same of being deleted; of a VM that does not run, since when it is so."""

    keep_awake: bool = False
    """It does not fall asleep by itself."""

    wake_by_name: bool = True
    """While it is asleep a neighbour who asks for its name wakes it."""

    disk_iops: int = UNLIMITED
    disk_bytes_per_second: int = UNLIMITED
    net_bytes_per_second: int = UNLIMITED
    """In either direction."""

    auto_start: int = NOT_STARTED
    """Its turn among those that are started when the host has, and nobody else does; see model.auto_start."""

    workload: Workload = field(default_factory=Workload)
    """What its image said of how it is to be run, when it was made."""

    healthcheck: Healthcheck = NO_HEALTHCHECK
    """With nothing left open."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What every command in its guest gets."""
        return {**self.workload.environment, **self.env}

    @property
    def disk_rates(self) -> DiskRates:
        """What it may take of its disk."""
        return DiskRates(self.disk_iops, self.disk_bytes_per_second)


@dataclass(frozen=True, slots=True)
class LiveVmm:
    """The process that a VM runs in. `pid` with `start_time` (clock ticks since boot, field 22 of /proc/PID/stat) is
    one process for ever; a pid alone is not."""

    pid: int
    start_time: int
    acceleration: Acceleration
    started_at: datetime
    boot_id: str = ""
    warm_key: str = ""
    """Of the memory that its guest has begun with, see model.warm; empty of one that has booted."""

    @property
    def boot_mode(self) -> BootMode:
        """WARM or COLD."""
        return BootMode.WARM if self.warm_key else BootMode.COLD


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM: which it is, what was asked for, and how it is."""

    id: str
    name: str
    created_at: datetime
    settings: VmSettings
    state: VmState
    state_since: datetime = _LONG_AGO
    """When it came to be in that state."""

    asleep_since: datetime | None = None
    """Since when its guest stands still, of one that is asleep or about to wake."""

    disk_generation: int = 1
    """One more whenever its guest may go on to change its disk: memory that was saved before is of no use then."""

    error: str = ""
    """Why it is in ERROR; in any other state what went wrong when it was to fall asleep or to wake, the last time."""

    slot: int | None = None
    """Its place in a shared network, see model.network; None in one of its own."""

    address: str = ""
    """Its guest's in a shared network, while that runs or is asleep."""

    address6: str = ""
    """The same of IPv6."""

    vmm: LiveVmm | None = None
    generation: int = 1
    """One more with each change of name or settings."""

    owner: int = ROOT
    """The uid of who has made it. Its name, and that of its network, are its owner's."""

    snapshot_id: str = ""
    """The snapshot on which its disk rests, and perhaps its memory; empty: it began with its image."""

    def called_by(self, caller: Caller) -> str:
        """What that caller has to say to mean it."""
        return called(self.owner, self.name, caller)


@dataclass(frozen=True, slots=True)
class Keeper:
    """The process that a VM lives for, told by its start time as in LiveVmm."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system: `id` is the SHA-256 of the ext4 file at images/<id>/rootfs.ext4."""

    id: str
    names: tuple[str, ...]
    size_bytes: int
    created_at: datetime
    source: str
    owner: int = ROOT
    """The uid of who has made it: all may use it."""

    owners: tuple[int, ...] = ()
    """The uids of all who have it, as the store knows them: `owner`, and who has given it a name."""

    config: ImageConfig | None = None
    """Of one from a registry."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A guest kernel at kernels/<id>/: vmlinux, modules/ in load order, and modules.squashfs with all of them.
    `release` is what `uname -r` will print."""

    id: str
    names: tuple[str, ...]
    release: str
    size_bytes: int
    modules: tuple[str, ...]
    created_at: datetime
    source: str
    owner: int = ROOT
    """The uid of who has made it: all may use it."""

    owners: tuple[int, ...] = ()
    """The uids of all who have it, as the store knows them: `owner`, and who has given it a name."""

    disk_modules: int = 0
    """How many modules are on the disk that its guests share. 0: there is no such disk, as before there were any."""

    disk_bytes: int = 0
    """Of `size_bytes`, how much that disk has."""

    @property
    def loaded_bytes(self) -> int:
        """What a guest that boots has of it in its memory."""
        return self.size_bytes - self.disk_bytes
