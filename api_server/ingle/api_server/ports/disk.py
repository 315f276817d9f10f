"""What a VM boots from: its root disk and its initramfs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ingle.api_server.model.guest import GuestNetwork
from ingle.api_server.model.vm import Kernel, Vm

_LITTLE = 10
"""A tenth of the disk."""


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

    def disk_path(self, directory: Path) -> Path:
        """The file with the disk, or with its changes to the image, of a VM whose state is in `directory`."""

    async def usable(self, images: Path, vms: Path) -> str:
        """Why it can't be used between these directories, as found out by trying; empty when it can."""

    async def create(self, image: Path, directory: Path, size_bytes: int) -> None:
        """Make the disk of `size_bytes` (at least the image's) over the ext4 file `image`.

        Raises HostProblem(DISK_FULL), ToolFailed. A failed create leaves no file."""

    async def grow(self, directory: Path, size_bytes: int) -> None:
        """Make it larger; only while it is not attached."""

    async def attach(self, vm: Vm, directory: Path) -> Path:
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

    hostname: str
    root_device: str
    network: GuestNetwork | None
    tcp_port: int = 0
    vsock_port: int = 0
    token: bytes = field(default=b"", repr=False)
    env: Mapping[str, str] = field(default_factory=dict)
    entropy: bytes = field(default=b"", repr=False)
    ready_device: str = ""
    power_off: bool = False
    image_init: bool = False
    network6: GuestNetwork | None = None


class BootMedia(Protocol):
    """Makes initramfs files: the agent as /init, the kernel's modules in load order, and one VM's configuration."""

    async def write(self, kernel: Kernel, config: BootConfig, path: Path) -> None:
        """Write a fresh file of mode 0600 (it holds the token)."""
