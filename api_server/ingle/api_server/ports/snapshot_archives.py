"""Snapshots as one file, which goes to another host and comes from one."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from ingle.api_server.model.snapshot import Snapshot


class Archived(NamedTuple):
    """What an archive says of its snapshot, before anything else of it is believed."""

    snapshot: Snapshot
    """Without an owner and an id; ports, labels and policies of its VM stay where they were."""
    token: bytes
    """What the agent in its memory wants."""


class SnapshotArchives(Protocol):
    """The disk travels as what is on it, and never as a file that could name others; all under hashes."""

    def scratch(self, name: str) -> AbstractAsyncContextManager[Path]:
        """A directory of one's own for as long as the context is open, on the file system of the snapshots. What a
        killed server leaves of it is gone when the next one starts. Raises HostProblem(DISK_FULL)."""

    def raw_disk(self, scratch: Path) -> Path:
        """Where what is on the disk is put to be packed, or is once it was unpacked."""

    def pack(self, snapshot: Snapshot, token: bytes, memory: Path | None, scratch: Path) -> AsyncIterator[bytes]:
        """The archive of a snapshot whose disk is at `raw_disk`, in pieces. Raises HostProblem(DISK_FULL)."""

    async def receive(self, upload: AsyncIterator[bytes], scratch: Path) -> Archived:
        """Take an archive, and read what it says. Raises BadFile(ARCHIVE_INVALID), HostProblem(DISK_FULL), and what
        `upload` raises."""

    async def unpack(self, snapshot: Snapshot, memory: Path | None, scratch: Path) -> None:
        """Of what was received there, put the files of the memory into an empty directory, and what is on the disk at
        `raw_disk`. Hashes of all are checked. Raises BadFile(ARCHIVE_INVALID), HostProblem(DISK_FULL)."""
