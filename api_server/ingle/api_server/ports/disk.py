"""What a VM boots from: its root disk and its initramfs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ingle.api_server.model.guest import GuestNetwork
from ingle.api_server.model.vm import Kernel


class DiskBackend(Protocol):
    """A writable copy of an image that costs as little as the host allows: qcow2, reflink or copy."""

    @property
    def name(self) -> str:
        """As in `Vm.disk_backend`."""

    def disk_path(self, directory: Path) -> Path:
        """The disk file of a VM whose state is in `directory`."""

    async def usable(self, images: Path, vms: Path) -> str:
        """Why it can't be used between these directories, as found out by trying; empty when it can."""

    async def create(self, image: Path, directory: Path, size_bytes: int) -> None:
        """Make the disk of `size_bytes` (at least the image's) over the ext4 file `image`.

        Raises HostProblem(DISK_FULL), ToolFailed. A failed create leaves no file."""

    async def grow(self, directory: Path, size_bytes: int) -> None:
        """Make it larger; only while no VMM has it open."""


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


class BootMedia(Protocol):
    """Makes initramfs files: the agent as /init, the kernel's modules in load order, and one VM's configuration."""

    async def write(self, kernel: Kernel, config: BootConfig, path: Path) -> None:
        """Write a fresh file of mode 0600 (it holds the token)."""
