"""What is remembered of snapshots."""

from typing import Protocol

from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.snapshot import Snapshot


class SnapshotStore(Protocol):
    """Snapshots, and what rests on them. What a change tells is an event, in its transaction."""

    async def insert(self, snapshot: Snapshot) -> None:
        """Record one that is being made: its name is taken, and its image and kernel can't be deleted. Raises
        Conflict: NAME_TAKEN, QUOTA_EXCEEDED; NotFound when image or kernel went away."""

    async def complete(self, snapshot: Snapshot, token: bytes = b"", op_id: str = "") -> Snapshot:
        """It is whole, with the parent, size, pause, key and digest that are known by now. `token`: what the agent in
        its memory wants. Raises Conflict(QUOTA_EXCEEDED)."""

    async def flattened(self, snapshot: Snapshot, op_id: str = "") -> Snapshot:
        """It needs no parent any more, and has that size and digest. Raises NotFound, Conflict(QUOTA_EXCEEDED)."""

    async def delete(self, snapshot_id: str, op_id: str = "") -> tuple[str, ...]:
        """Absent is fine. Answers what rests on it: if anything does, it stays and loses its name."""

    async def get(self, snapshot_id: str) -> Snapshot:
        """The one with that id. Raises NotFound."""

    async def chain(self, snapshot_id: str) -> tuple[Snapshot, ...]:
        """The one with that id and behind it all that it needs, its parent first. Raises NotFound."""

    async def exact(self, reference: Reference) -> Snapshot:
        """The caller's with that id or name."""

    async def find(self, reference: Reference) -> Snapshot:
        """The same, or the one whose id begins so: for who only looks."""

    async def all(self) -> list[Snapshot]:
        """All, oldest first."""

    async def of(self, caller: Caller, *, all_users: bool = False) -> list[Snapshot]:
        """The caller's, or everybody's; oldest first. Raises Conflict(NOT_ADMIN)."""

    async def token(self, snapshot_id: str) -> bytes:
        """What the agent in its memory wants. Raises NotFound."""
