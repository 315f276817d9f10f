"""Blocking work off the event loop, without ever being left behind."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in a thread. Cancelled, it first waits for the call to end.

    asyncio.to_thread goes on in its thread when cancelled: it would write into a directory that is being removed."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # seen: the cancellation is what the caller hears of
        raise cancelled
    return task.result()


class Stopped(Exception):
    """It was asked to end before its end."""


class Stop:
    """What a function that takes long asks now and then."""

    def __init__(self) -> None:
        self._wanted = threading.Event()

    def ask(self) -> None:
        """Have it end."""
        self._wanted.set()

    def check(self) -> None:
        """Raise Stopped if somebody has asked for it."""
        if self._wanted.is_set():
            raise Stopped


async def in_stoppable_thread(function: Callable[Concatenate[Stop, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    """As in_thread, for what may take longer than whoever cancels it would wait."""
    stop = Stop()
    work = asyncio.ensure_future(in_thread(function, stop, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.ask()
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        work.exception()  # seen
        raise
