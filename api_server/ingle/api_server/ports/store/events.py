"""What is remembered of what has happened."""

import asyncio
from datetime import datetime
from typing import NamedTuple, Protocol

from ingle.api_server.model.event import Event, Happening


class Told(NamedTuple):
    """Some events, and the cursor up to which there are no others."""

    events: list[Event]
    cursor: int


class EventStore(Protocol):
    """Events, in their order. Other stores record theirs, each in the transaction with what it tells.

    `owner` is whose events to look at, besides those of what all users share; None: everybody's. So many are kept
    of each owner, and none for longer than so long: what one does pushes out nobody else's."""

    changed: asyncio.Event
    """The present one is set when something is recorded, and another one takes its place."""

    async def record(self, happening: Happening) -> None:
        """For what changes nothing else that is stored. Raises HostProblem(DISK_FULL)."""

    async def behind(self, cursor: int, owner: int | None) -> Told:
        """The next ones, a hundred at most. Raises CursorExpired when one of them is kept no longer."""

    def newest(self) -> int:
        """The cursor of the last one; 0 when there was none ever."""

    def oldest(self, owner: int | None) -> int:
        """The cursor behind which all that is kept is."""

    async def before(self, time: datetime, owner: int | None) -> int:
        """The cursor behind which all that is kept of `time` or later is."""
