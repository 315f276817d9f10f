"""Calls with both directions at once: the caller says `start` first, and gets the answers as they come."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

from ingle.api_server.model.errors import InvalidArgument
from ingle.v1 import guest_pb2

_R = TypeVar("_R", guest_pb2.ExecRequest, guest_pb2.AttachSessionRequest, guest_pb2.ForwardRequest)
_E = TypeVar("_E")
_M = TypeVar("_M")


async def opening(requests: AsyncIterator[_R], what: str) -> _R:
    """The first message of `what`. Raises InvalidArgument unless that is `start`."""
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("message") != "start":
        raise InvalidArgument(f"the first message of {what} must be `start`")
    return first


async def answers(events: AsyncGenerator[_E, None], message: Callable[[_E], _M]) -> AsyncIterator[_M]:
    """Each event as a message. Events end with who asks for them."""
    async with aclosing(events):
        async for event in events:
            yield message(event)


def not_allowed(kind: str | None, after: str = "start") -> InvalidArgument:
    """A message of that kind comes at the wrong time."""
    return InvalidArgument(f"message {kind or 'without content'} is not allowed after {after}")
