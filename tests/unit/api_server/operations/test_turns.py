"""Whose turn it is."""

import asyncio

import pytest

from ingle.api_server.operations.turns import Turns

HERS, HIS, THEIRS = 1, 2, 3


class Queue:
    """Work of owners that waits for its turn; what has been done, in its order."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.done: list[str] = []
        self.at_once = 0

    def wants(self, owner: int, name: str) -> "asyncio.Task[None]":
        async def work() -> None:
            async with self.turns.of(owner):
                self.at_once += 1
                assert self.at_once == 1
                try:
                    await asyncio.sleep(0)
                finally:
                    self.at_once -= 1
                self.done.append(name)

        return asyncio.create_task(work())


async def test_who_wants_little_does_not_wait_for_all_that_another_wants() -> None:
    queue = Queue()
    hers = [queue.wants(HERS, f"hers {number}") for number in range(4)]
    others = [queue.wants(HIS, "his 0"), queue.wants(HIS, "his 1"), queue.wants(THEIRS, "theirs")]
    await asyncio.gather(*hers, *others)
    assert queue.done == ["hers 0", "his 0", "hers 1", "theirs", "his 1", "hers 2", "hers 3"]


@pytest.mark.parametrize("sleeps", range(5))
async def test_who_is_cancelled_holds_up_nobody(sleeps: int) -> None:
    """Also in the instant in which its turn comes."""
    queue = Queue()
    tasks = [queue.wants(HERS, "first"), queue.wants(HIS, "cancelled"), queue.wants(HIS, "second")]
    for _ in range(sleeps):
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [name for name in queue.done if name != "cancelled"] == ["first", "second"]
    again = queue.wants(THEIRS, "again")
    await asyncio.wait_for(again, 10)
    assert not queue.turns._waiting


async def test_what_fails_passes_the_turn_on() -> None:
    queue = Queue()

    async def fails() -> None:
        async with queue.turns.of(HERS):
            await asyncio.sleep(0)
            raise OSError("no room")

    failing = asyncio.create_task(fails())
    await queue.wants(HERS, "next")
    with pytest.raises(OSError, match="no room"):
        await failing
    assert queue.done == ["next"]
