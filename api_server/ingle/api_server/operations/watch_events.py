"""Tell who watches what has happened, and what happens."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ingle.api_server.model.errors import CursorExpired, HostProblem
from ingle.api_server.model.event import Event, EventKind, Happening
from ingle.api_server.model.labels import has_all
from ingle.api_server.model.resource import ResourceKind
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.store.events import EventStore

_SAY_SO_EVENTS = 500
"""After so many events that a watcher does not want it is told how far it is, so that its cursor stays young."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to be told. Empty collections: all."""

    owner: int | None
    """As of ports.store.events.EventStore."""

    after: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    follow: bool = True
    kinds: Collection[EventKind] = ()
    resource_kinds: Collection[ResourceKind | None] = ()
    """None is the server."""

    resource: str = ""
    labels: Mapping[str, str | None] = field(default_factory=dict)
    """As of model.labels.has_all."""

    def wants(self, event: Event) -> bool:
        """Whether it is one of those."""
        what = event.what
        return (
            (self.since is None or event.time >= self.since)
            and (self.until is None or event.time < self.until)
            and (not self.kinds or what.kind in self.kinds)
            and (not self.resource_kinds or (what.resource and what.resource.kind) in self.resource_kinds)
            and (not self.resource or self.resource in _names(what))
            and has_all(what.labels, self.labels)
        )


@dataclass(frozen=True, slots=True)
class Position:
    """All up to `cursor` was told or was not wanted; `event` is what is told now, if anything is."""

    cursor: int
    event: Event | None = None


class WatchEvents:
    """Each watcher reads at its own pace: one that is slow holds up nobody, and costs no more than any other."""

    def __init__(self, events: EventStore, clock: Clock) -> None:
        self._events = events
        self._clock = clock

    async def watch(self, wish: Wish) -> AsyncGenerator[Position, None]:
        """First where it begins, then one event after the other. Raises CursorExpired."""
        cursor = await self._begin(wish)
        yield Position(cursor)
        end = self._events.newest()
        said = cursor
        while True:
            changed = self._events.changed
            told = await self._events.behind(cursor, wish.owner)
            for event in told.events:
                if wish.wants(event):
                    said = event.cursor
                    yield Position(said, event)
            at_end = told.cursor == cursor
            cursor = told.cursor
            if cursor - said >= _SAY_SO_EVENTS:
                said = cursor
                yield Position(said)
            if not wish.follow and cursor >= end:
                return
            if at_end and not await self._more(changed, wish.until):
                return

    async def _begin(self, wish: Wish) -> int:
        oldest = self._events.oldest(wish.owner)
        if wish.after:
            if wish.after < oldest or wish.after > self._events.newest():  # of a database that was lost, say
                raise CursorExpired(wish.after, oldest)
            return wish.after
        if wish.since is not None:
            return await self._events.before(wish.since, wish.owner)
        everything = wish.after == 0 or not wish.follow
        return oldest if everything else self._events.newest()

    async def _more(self, changed: asyncio.Event, until: datetime | None) -> bool:
        """Whether something has happened before that time."""
        left = None if until is None else (until - self._clock.now()).total_seconds()
        try:
            async with asyncio.timeout(left):
                await changed.wait()
        except TimeoutError:
            return False
        return True


async def server_started(events: EventStore, version: str, pid: int) -> str:
    """Say so. Answers why it could not be said; empty when it was."""
    attributes = {"version": version, "pid": str(pid)}
    try:
        await events.record(Happening(EventKind.SERVER_STARTED, attributes=attributes))
    except HostProblem as error:
        return error.message
    return ""


def _names(what: Happening) -> Collection[str]:
    return (what.name,) if what.resource is None else (what.name, what.resource.id)
