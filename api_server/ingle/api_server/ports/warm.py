"""Where the memory of pristine guests is kept."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ingle.api_server.model.warm import Machine, WarmMemory
from ingle.api_server.ports.engine import VmPaths


class WarmCache(Protocol):
    """A directory of pristine guests by the key of their machine, each complete or absent, whatever kills the server.

    It is a cache: all of it may be deleted at any time, also under VMs that were started from it, which have the pages
    that they use and a disk of their own."""

    def make_directory(self, paths: VmPaths) -> None:
        """Make the state directory of a guest that is to be saved, mode 0700. `paths` are below the cache."""

    def memory(self, paths: VmPaths) -> Path:
        """The directory that a guest which is being made is saved to, made if it is not there."""

    async def publish(self, machine: Machine, paths: VmPaths, disk: Path, token: bytes, now: datetime) -> WarmMemory:
        """Make what is in the state directory, its memory and the file `disk`, the entry of that machine, in the place
        of an earlier one, by one rename: everything else in there is dropped, and nothing changes any more.

        Raises HostProblem(DISK_FULL)."""

    async def find(self, key: str) -> WarmMemory | None:
        """The entry, whose files are what they were when it was published; None when there is none.

        Raises BadFile(MEMORY_DAMAGED), which says what is wrong with it."""

    async def used(self, key: str, now: datetime) -> None:
        """A VM was started from it. Absent is fine."""

    async def all(self) -> list[WarmMemory]:
        """All of them, whose files have not been looked at, the least recently used first."""

    async def remove(self, key: str) -> None:
        """Delete an entry. Absent is fine."""

    async def bound(self, most_bytes: int, spared: Collection[str]) -> list[str]:
        """Delete until all together take no more than that; those in `spared` stay. It is the least recently used that
        goes of the owner who has most: nobody loses any to one who makes more. Answers the keys of what has gone."""

    async def sweep(self) -> None:
        """Remove what a dead server left half made or half removed. Only for start-up."""
