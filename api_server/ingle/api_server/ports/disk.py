"""What a VM boots from: its root disk and its initramfs."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from ingle.api_server.model.guest import GuestIdentity
from ingle.api_server.model.vm import Kernel, Vm

_LITTLE = 10
"""A tenth of the disk."""


class DiskFormat(Enum):
    """How a disk's content lies in its file or device."""

    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True)
class Disk:
    """What a VMM is to open, and as what: a name says neither."""

    path: Path
    format: DiskFormat
    is_block: bool = False
    """Whether it is a block device of the host's, and no file."""
    bases: tuple[Path, ...] = ()
    """Files that it rests on, to be read only."""


@dataclass(frozen=True, slots=True)
class DiskChanges:
    """What an attached disk has that its image has not, where the kernel keeps the two apart, in bytes."""

    used_bytes: int
    capacity_bytes: int
    """With every block of the disk changed."""
    free_bytes: int
    """What the host's file system has left for them."""
    overflowed: bool = False
    """The host had no room for a change once: what was on the disk is lost."""

    @property
    def room_bytes(self) -> int:
        """How much more can be changed."""
        return max(0, min(self.capacity_bytes - self.used_bytes, self.free_bytes))

    @property
    def filling(self) -> bool:
        """Whether the host could not take the changes that may still come, and little is left."""
        most = self.capacity_bytes - self.used_bytes
        return self.overflowed or self.free_bytes < min(most, self.capacity_bytes // _LITTLE)


class DiskBackend(Protocol):
    """A writable copy of an image that costs as little as the host allows: see model.spec.DISK_BACKENDS."""

    @property
    def name(self) -> str:
        """As in `Vm.disk_backend`."""

    @property
    def format(self) -> DiskFormat:
        """Of the disks that it attaches."""

    @property
    def copies(self) -> bool:
        """Whether a new disk takes as much room as its image, which the others share with it."""

    @property
    def stacks(self) -> bool:
        """Whether `create` takes a disk of its own as the base, and not images alone."""

    def disk_path(self, directory: Path) -> Path:
        """The file with the disk, or with its changes to the image, of a VM whose state is in `directory`."""

    async def usable(self, images: Path, vms: Path) -> str:
        """Why it can't be used between these directories, as found out by trying; empty when it can."""

    async def create(self, base: Disk, directory: Path, size_bytes: int) -> None:
        """Make the disk of `size_bytes` (at least the base's) over `base`: an image, or, if it `stacks`, another disk
        of this backend's. The base is only read, and must stay as it is for as long as the disk is there, unless
        `copies`.

        Raises HostProblem(DISK_FULL), ToolFailed. A failed create leaves no file."""

    async def duplicate(self, disk: Path, image: Path, directory: Path) -> None:
        """Make the disk the same as `disk`, one of this backend's over `image` that nobody writes to. They share blocks
        where the file system can, and may then change and go as they please: what is duplicated is what `disk` has that
        `image` has not, where the backend keeps the two apart.

        Raises HostProblem(DISK_FULL), ToolFailed. A failed one leaves no file."""

    async def difference(self, disk: Path, base: Path | None, image: Path, directory: Path) -> None:
        """Make the disk one that reads as `disk` does, of this backend's over `image` or others of them, but rests on
        `base` instead, another one; None: on the image. Nobody writes to any of them. Where disks of this backend rest
        on no other there is none made.

        Raises HostProblem(DISK_FULL), BadFile(SNAPSHOT_INVALID) for what is none of this backend's, or over another
        image. A failed one leaves no file."""

    async def to_raw(self, disk: Path, target: Path) -> None:
        """Write what is on `disk`, one of this backend's that nobody writes to, into a new sparse file. Raises
        HostProblem: DISK_FULL, DEPENDENCY_MISSING where that can't be done."""

    async def from_raw(self, raw: Path, image: Path, directory: Path) -> None:
        """Make the disk with what is in the file `raw`, which may be moved; it may say that it is over `image`, as all
        of this backend's are. Raises as `to_raw`."""

    async def grow(self, directory: Path, size_bytes: int) -> None:
        """Make it larger; only while it is not attached."""

    async def attach(self, vm: Vm, directory: Path) -> Disk:
        """What the VM's VMM is to open, until `detach`. Again is fine.

        Raises HostProblem(DISK_OVERFLOWED) for a disk whose content is lost, and what the helper refuses."""

    async def detach(self, vm_id: str) -> None:
        """Give back what `attach` took; its VMM is gone. Absent is fine."""

    async def reconcile(self, vms: Collection[Vm]) -> None:
        """Of all disks of this backend exactly those of `vms` are attached afterwards."""

    async def changes(self, vm_id: str, directory: Path) -> DiskChanges | None:
        """How full an attached disk is; None where a disk is a file, which is its guest's to fill."""


@dataclass(frozen=True, slots=True)
class BootConfig:
    """What the agent needs before anyone can call it; mirrors ingle.agent.v1.BootConfig, which documents the fields."""

    identity: GuestIdentity
    root_device: str = ""
    serial_port: str = ""
    vsock_port: int = 0
    ready_device: str = ""
    power_off: bool = False
    image_init: bool = False
    modules_device: str = ""
    """Where the disk with a kernel's modules would be: it is written down of a kernel that has one."""


class BootMedia(Protocol):
    """Makes initramfs files: the agent as /init, the kernel's modules in load order, and one VM's configuration."""

    def agent(self) -> str:
        """Which agent is in there: another one has another text."""

    async def write(self, kernel: Kernel, config: BootConfig, path: Path) -> None:
        """Write a fresh file of mode 0600 (it holds the token)."""
