"""The files of snapshots."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from ingle.api_server.model.snapshot import Snapshot


class SealedSnapshot(NamedTuple):
    """What is known of a snapshot's files once they change no more."""

    size_bytes: int
    """Blocks that they take."""
    digest: str
    """Of the manifest, which has their own."""


class Whole(NamedTuple):
    """Where a snapshot's files are as a VMM wants them."""

    disk: Path
    """A directory as a DiskBackend has it. What rests on the disk there finds it there as long as the snapshot is."""

    memory: Path
    """A directory as an Engine has it, for what starts before `forget_whole`."""


class SnapshotFiles(Protocol):
    """A directory a snapshot, of the server's user alone: the disk, `memory` if there is one, and a manifest. It is
    whole or absent, whatever kills the server. Removing what is absent is fine.

    Some of its files may be but what they have that those of its parent have not. A `chain` is a snapshot and behind it
    all that it rests on, its parent first; as they are in the store, which must not change meanwhile."""

    def path(self, snapshot_id: str) -> Path:
        """Of one that is whole."""

    def memory(self, directory: Path) -> Path:
        """Where the memory is in such a directory."""

    async def begin(self, snapshot: Snapshot) -> Path:
        """A new directory for what is being made, with an empty one for its memory if it is to have that. Raises
        HostProblem(DISK_FULL)."""

    async def publish(self, snapshot: Snapshot) -> SealedSnapshot:
        """What was begun is whole: its files change no more, and are on the disk with their manifest. It takes as long
        as the content is, and can be cancelled. Raises HostProblem(DISK_FULL)."""

    async def verify(self, chain: Sequence[Snapshot]) -> None:
        """Raise BadFile(SNAPSHOT_INVALID) unless the first one's files, and those that they need, are what they were
        when they were made. As long as the file system tells of no change, they are read the first time only."""

    async def whole(self, chain: Sequence[Snapshot]) -> Whole:
        """The first one's, which was verified: where they need others, made of all of them, and made once for all who
        ask. Raises BadFile(SNAPSHOT_INVALID), HostProblem(DISK_FULL)."""

    def whole_bytes(self, chain: Sequence[Snapshot]) -> int:
        """How much that would take at most."""

    async def forget_whole(self, snapshot_id: str) -> None:
        """Nobody needs it any more: it takes no room, and is made again where somebody asks. What runs has it still."""

    async def thin(self, snapshot: Snapshot, parent: Sequence[Snapshot], *, disk: bool) -> Path:
        """Of what was begun, as far as it is there, tell memory, and the disk if wanted, from the parent's; answers a
        directory that others may put something into, too, to take the place of what is so called. Raises
        HostProblem(DISK_FULL)."""

    async def settle_thin(self, snapshot: Snapshot, *, at_any_price: bool) -> bool:
        """Take that if it saves enough, or at any price. False: it is as if it never was."""

    async def begin_flat(self, snapshot: Snapshot) -> Path:
        """A directory for what one that is whole would be if it rested on nothing: others may put a disk there. Raises
        HostProblem(DISK_FULL)."""

    async def publish_flat(self, chain: Sequence[Snapshot], flat: Snapshot) -> SealedSnapshot:
        """What is not in there yet is put there, all of it durable; nobody uses it before `settle_flat`. `flat`: what
        the snapshot is then. Raises HostProblem(DISK_FULL)."""

    async def settle_flat(self, snapshot_id: str, digest: str) -> None:
        """Its files are those that the manifest with that digest is on; what else was begun is gone. Again is fine.
        Who has opened a file, or opens it meanwhile, finds the same in it."""

    async def remove(self, snapshot_id: str) -> None:
        """Whole or not."""

    async def sweep(self, known: Collection[str]) -> None:
        """Remove all others. For a server that starts."""
