"""Block devices that are snapshots of images, which only root can make: the helper makes them, by VM."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WantedDevice:
    """A VM's device: its image, and behind that zeros up to `size_bytes`, a multiple of 4096."""

    vm_id: str
    image_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SnapshotDevice:
    """One that is there. `used_bytes` of `capacity_bytes` in the file with its changes are taken."""

    path: Path
    overflowed: bool
    used_bytes: int
    capacity_bytes: int


class SnapshotDevices(Protocol):
    """Raises HostProblem(DEPENDENCY_MISSING) without a helper, and IngleError with the helper's own reason."""

    async def problem(self) -> str:
        """Why there can't be any here; empty when there can."""

    async def ensure(self, wanted: WantedDevice) -> SnapshotDevice:
        """Make it, or change what the VM has until it is as wanted."""

    async def remove(self, vm_id: str) -> None:
        """Absent is fine. Raises IN_USE while somebody has it open."""

    async def find(self, vm_id: str) -> SnapshotDevice | None:
        """The VM's, if it has one."""

    async def reconcile(self, wanted: Collection[WantedDevice]) -> None:
        """Exactly these are there afterwards."""
