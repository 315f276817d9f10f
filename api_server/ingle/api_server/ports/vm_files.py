"""The files of a VM: where they are, and reading them."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ingle.api_server.ports.engine import VmPaths


@dataclass(frozen=True, slots=True)
class LogWish:
    """What of a log is wanted: lines from `since` on, those before `until`, and the last so many of these. Following
    ends at `until`."""

    follow: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """The next bytes of a log, of lines that were written by this time, as far as anybody has seen: one or several of
    them, or a part of one."""

    data: bytes
    time: datetime


class VmFiles(Protocol):
    """Directories of VMs. Removing what is absent is fine everywhere."""

    def paths(self, vm_id: str) -> VmPaths:
        """Where everything of this VM is or would be."""

    def create_state(self, paths: VmPaths) -> None:
        """Make its state directory, mode 0700."""

    async def remove_state(self, paths: VmPaths) -> None:
        """Delete disks and logs."""

    async def begin_disk(self, paths: VmPaths, snapshot_id: str) -> Path:
        """An empty directory for a disk made of that snapshot, which is to take the place of the VM's."""

    async def swap_disk(self, paths: VmPaths, snapshot_id: str) -> None:
        """It takes the place of the VM's disk, durably, which is kept. Raises HostProblem(DISK_FULL)."""

    async def put_disk_back(self, paths: VmPaths) -> None:
        """The disk that was kept takes its place again, durably, if there is one. Raises HostProblem(DISK_FULL)."""

    async def drop_former_disk(self, paths: VmPaths) -> None:
        """Delete the disk that was kept."""

    async def drop_new_disks(self, paths: VmPaths) -> None:
        """Delete what has not taken the place."""

    def create_runtime(self, paths: VmPaths) -> None:
        """Make its runtime directory, mode 0700, empty: what an earlier boot left is gone. Raises HostProblem where it
        can't be made, since a login manager took away what it would be in."""

    def remove_initramfs(self, paths: VmPaths) -> None:
        """Delete what its VMM has read, with the secrets in there."""

    async def remove_runtime(self, paths: VmPaths) -> None:
        """Delete sockets and boot secrets."""

    def of_others(self, known: Collection[str]) -> list[Path]:
        """State directories of VMs that are not `known`."""

    def allocated_bytes(self, file: Path) -> int:
        """Blocks a file really takes; 0 when it is absent."""

    def free_bytes(self, paths: VmPaths) -> int:
        """What there is room for where its disk is."""

    def tail(self, file: Path, size: int) -> str:
        """The last `size` bytes as text; empty when it is absent."""

    def stream(self, file: Path, wish: LogWish) -> AsyncIterator[Said]:
        """What is in the log `file`, then, following, what is added, to it and to a file that takes its place, until
        the directory is gone. Where something was forgotten before it was read, it says so."""
