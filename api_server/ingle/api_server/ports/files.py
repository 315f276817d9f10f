"""The files of a VM: where they are, and reading them."""

from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Protocol

from ingle.api_server.ports.engine import VmPaths


class VmFiles(Protocol):
    """Directories of VMs. Removing what is absent is fine everywhere."""

    def paths(self, vm_id: str) -> VmPaths:
        """Where everything of this VM is or would be."""

    def create_state(self, paths: VmPaths) -> None:
        """Make its state directory, mode 0700."""

    async def remove_state(self, paths: VmPaths) -> None:
        """Delete disks and logs."""

    def create_runtime(self, paths: VmPaths) -> None:
        """Make its runtime directory, mode 0700, empty: what an earlier boot left is gone. Raises HostProblem where it
        can't be made, since a login manager took away what it would be in."""

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

    def stream(self, file: Path, *, follow: bool, tail_lines: int | None) -> AsyncIterator[bytes]:
        """What is in `file` (its last lines only, when asked), then, following, what is added, to it and to
        a file that takes its place, until the directory is gone. Where something was forgotten before it was read, it
        says so."""
