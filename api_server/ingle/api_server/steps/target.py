"""What the steps of a VM's pipelines work on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.model.vm import Acceleration, Image, Keeper, Kernel, LiveVmm, Vm, VmState
from ingle.api_server.model.warm import Machine, WarmMemory
from ingle.api_server.ports.disk import Disk
from ingle.api_server.ports.engine import Vmm, VmPaths
from ingle.api_server.ports.network import Link

_BOOT_SECONDS = 60.0
_PATIENT_BOOT_SECONDS = 600.0


@dataclass(slots=True)
class VmTarget:
    """One VM on its way. Undo may rely on `op_id`, `vm_id` and `paths` alone: after a crash nothing else is known."""

    kind: ClassVar = ResourceKind.VM

    op_id: str
    vm_id: str
    paths: VmPaths

    @property
    def resource(self) -> Resource:
        """As the journal has it."""
        return Resource(self.kind, self.vm_id)


@dataclass(slots=True)
class Start(VmTarget):
    """A VM being created or started: earlier steps find out what later ones need."""

    vm: Vm
    image: Image
    kernel: Kernel
    token: bytes = field(repr=False)
    acceleration: Acceleration = Acceleration.AUTO
    keeper: Keeper | None = None
    created: bool = False
    """Whether nobody has had this VM before."""
    link: Link | None = None
    root_disk: Disk | None = None
    base: Path | None = None
    """The directory of a snapshot, whose disk the VM's begins with; None: it begins with the image."""
    memory: Path | None = None
    """A directory that a VMM has saved a guest to, which goes on in place of one that boots."""
    memory_token: bytes = field(default=b"", repr=False)
    """What the agent of that guest wants of its callers until it is told who it is now."""
    warm: WarmMemory | None = None
    """The memory that it begins with, and the disk; None: it boots."""
    warning: str = ""
    """What whoever has asked for it should know."""
    vmm: Vmm | None = None
    publishes_later: bool = False
    """Whether its VMM is started without the VM's ports, which somebody else has until it is there."""
    boot_id: str = ""

    @property
    def boot_seconds(self) -> float:
        """What its guest may take until its agent answers."""
        return _BOOT_SECONDS

    @property
    def attached_disk(self) -> Disk:
        """What the VMM opens, which the attaching step knows."""
        assert self.root_disk is not None
        return self.root_disk

    @property
    def live_vmm(self) -> Vmm:
        """The VMM, which the launch step has started."""
        assert self.vmm is not None
        return self.vmm

    def recorded(self, now: datetime) -> LiveVmm:
        """What the store is to remember of that VMM, which is up since now."""
        vmm = self.live_vmm
        warm_key = self.warm.key if self.warm is not None else ""
        return LiveVmm(vmm.pid, vmm.start_time, self.acceleration, now, self.boot_id, warm_key)


@dataclass(slots=True, kw_only=True)
class PristineStart(Start):
    """A guest that is booted for its memory, which others begin with: it is nobody's VM."""

    kind: ClassVar = ResourceKind.WARM_MEMORY

    machine: Machine
    waited: bool
    """Whether somebody waits for it."""

    kept: WarmMemory | None = None

    @property
    def boot_seconds(self) -> float:
        """More, where it leaves the processors to others, who may need them for long."""
        return _BOOT_SECONDS if self.waited else _PATIENT_BOOT_SECONDS


class PristineRemains(VmTarget):
    """What is left of such a one after a crash."""

    kind: ClassVar = ResourceKind.WARM_MEMORY


class Cold:
    """Of steps that a guest which begins with a memory of the cache does not take; see StartWarm."""

    def needed(self, target: Start) -> bool:
        """Whether it boots."""
        return target.warm is None


@dataclass(slots=True)
class Sleep(VmTarget):
    """A VM that falls asleep, or is resumed."""

    vm: Vm
    vmm: Vmm
    may_rest: bool = True
    """Whether its guest may have been asked to rest, and has to be told to go on."""
    renamed: bool = False
    """Whether its guest does not know its name yet."""
    before: VmState = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.vm.state

    @property
    def paused_before(self) -> bool:
        """Whether its guest stood still before any of this."""
        return self.before is VmState.PAUSED


@dataclass(frozen=True, slots=True)
class SavedGuest:
    """What it takes to go on with a guest whose memory is in a directory."""

    memory: Path
    token: bytes = field(repr=False)
    """What its agent wants until it is told who it is now."""

    acceleration: Acceleration

    def put_into(self, target: Start) -> None:
        """It is what is started."""
        target.memory = self.memory
        target.memory_token = self.token
        target.acceleration = self.acceleration


@dataclass(slots=True)
class Change(VmTarget):
    """A VM whose settings change."""

    before: Vm
    after: Vm
    vmm: Vmm | None = None
    """Where one lives."""


@dataclass(slots=True)
class Restoring(VmTarget):
    """A VM that is put back to a snapshot."""

    vm: Vm
    snapshot_id: str
    base: Path
    """Of the snapshot's files."""

    image: Path
    disk_bytes: int
    """As large as it was."""

    begin: Callable[[], Awaitable[object]] | None = None
    """What starts it afterwards; None: nobody wants that."""
