"""Both directions of a call at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import TypeVar

from ingle.api_server.model.errors import GuestError

_E = TypeVar("_E")


async def both_ways(
    carry: Coroutine[None, None, None], leave: Callable[[], None], events: AsyncIterator[_E]
) -> AsyncGenerator[_E, None]:
    """The events, while `carry` takes to the guest what the caller sends. A caller whose messages can't be carried on
    is left, which ends the events, and told the reason."""
    carrying = asyncio.create_task(_or_leave(carry, leave))
    try:
        async for event in events:
            yield event
    except GuestError:
        if carrying.done() and (problem := carrying.exception()):
            raise problem from None  # it is why the events ended
        raise
    finally:
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)
        carry.close()  # which was not begun where the guest had ended at once


async def _or_leave(carry: Coroutine[None, None, None], leave: Callable[[], None]) -> None:
    try:
        await carry
    except Exception:
        leave()
        raise
