"""One at a time, and nobody before whose turn it is."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Those of one owner come in their order, owners in turn: who wants much waits for who wants little, not the other
    way round."""

    def __init__(self) -> None:
        self._taken = False
        self._last = -1
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}
        """By owner, the next one first."""

    @asynccontextmanager
    async def of(self, owner: int) -> AsyncIterator[None]:
        """Wait for a turn of that owner, a uid; it lasts as long as the context is open."""
        await self._take(owner)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, owner: int) -> None:
        if not self._taken:
            self._taken, self._last = True, owner
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it has come in the same instant
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """To the next of an owner who has not had the last one, if there is any such."""
        there = {each: deque(turn for turn in queue if not turn.cancelled()) for each, queue in self._waiting.items()}
        self._waiting = {each: queue for each, queue in there.items() if queue}
        owner = next((each for each in self._waiting if each != self._last), self._last)
        queue = self._waiting.pop(owner, deque())
        self._taken, self._last = bool(queue), owner
        if queue:
            turn = queue.popleft()
            if queue:
                self._waiting[owner] = queue  # behind the others
            turn.set_result(None)
