"""The journal of steps in flight."""

from dataclasses import dataclass
from typing import Protocol

from ingle.api_server.model.operation import Stage
from ingle.api_server.model.resource import Resource


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A step that was begun for a resource, and neither completed with all of that resource's nor undone."""

    op_id: str
    resource: Resource
    step: str


class Journal(Protocol):
    """Intent, on disk before anything acts on it."""

    async def intend(self, entry: JournalEntry, stages: tuple[Stage, ...] = ()) -> None:
        """Committed and synced when this returns, with the stages that the operation has had, if any."""

    async def forget(self, entry: JournalEntry) -> None:
        """The step was undone."""

    async def close(self, op_id: str, resource: Resource) -> None:
        """The resource is complete: what the operation's steps acquired for it is now owned by its row. The operation
        need not be over, it may have others to make; until its end is recorded, `kept` tells of this one."""

    async def kept(self, op_id: str) -> list[Resource]:
        """What an operation has completed whose end nobody has recorded."""

    async def open_entries(self) -> list[JournalEntry]:
        """All of them, in the order they were intended."""
