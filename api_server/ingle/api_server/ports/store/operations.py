"""What is remembered of operations."""

from typing import Protocol

from ingle.api_server.model.caller import Caller
from ingle.api_server.model.operation import Operation


class OperationStore(Protocol):
    """Operations, under way and over: of these, the last ones."""

    async def save(self, operation: Operation) -> None:
        """Insert or replace. One that has ended keeps nothing any more: what it made is there."""

    async def get(self, op_id: str, caller: Caller) -> Operation:
        """Raises NotFound(OPERATION_NOT_FOUND), also for a stranger's."""

    async def of(self, caller: Caller, *, all_users: bool = False) -> list[Operation]:
        """The caller's, or everybody's; newest first. Raises Conflict(NOT_ADMIN)."""

    async def latest(self, limit: int | None = None) -> list[Operation]:
        """Newest first; all that are kept, or so many."""
