"""Blocking work in threads."""

import asyncio
import threading

import pytest

from ingle.api_server.host.threads import in_thread


async def test_it_answers_and_raises_what_the_function_does() -> None:
    assert await in_thread(int, "42") == 42
    with pytest.raises(ValueError, match="nonsense"):
        await in_thread(int, "nonsense")


async def test_cancelled_it_waits_for_the_function_to_end() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait()
        ended.set()

    task = asyncio.create_task(in_thread(work))
    while not begun.is_set():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
