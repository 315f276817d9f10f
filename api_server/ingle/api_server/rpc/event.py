"""EventService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeAlias

import grpc

from ingle.api_server.operations.watch_events import WatchEvents
from ingle.api_server.rpc import convert, who
from ingle.v1 import event_pb2, event_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class EventServicer(event_pb2_grpc.EventServiceServicer):
    """Events."""

    def __init__(self, events: WatchEvents) -> None:
        self._events = events

    async def WatchEvents(
        self, request: event_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        wish = convert.watch_wish(request, who.caller(context))
        async with aclosing(self._events.watch(wish)) as positions:
            async for position in positions:
                yield convert.watch_answer(position)
