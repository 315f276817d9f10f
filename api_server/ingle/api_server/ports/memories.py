"""What is saved of a guest's memory while its VM hibernates: a directory that an engine fills, and what it takes to
use it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ingle.api_server.model.vm import Acceleration
from ingle.api_server.ports.engine import VmPaths


@dataclass(frozen=True, slots=True)
class SavedMemory:
    """What it takes to go on from it."""

    disk_generation: int
    """Of its VM just then: with any other its disk is another one, and would be destroyed."""

    key: str
    """As of Engine.memory_key."""

    acceleration: Acceleration
    boot_id: str
    """As of LiveVmm."""


class Memories(Protocol):
    """One a VM at most."""

    async def begin(self, paths: VmPaths) -> Path:
        """An empty directory for an engine to save a memory in; nothing else of this VM's is saved any more."""

    async def publish(self, paths: VmPaths, saved: SavedMemory) -> None:
        """What was begun is whole: from now on it is found at `paths.memory`, also after a power cut, and never half of
        it. Raises HostProblem(DISK_FULL)."""

    async def find(self, paths: VmPaths) -> SavedMemory | None:
        """What is there, if that is as it was published, as far as sizes tell; None otherwise."""

    async def remove(self, paths: VmPaths) -> None:
        """What was begun or published. Absent is fine."""
