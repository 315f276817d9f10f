"""The calls under way, and how a server that stops ends them: each is told so, in an error of ours."""

import asyncio
from collections import Counter

from ingle.api_server.model.errors import Conflict, Reason

ENDLESS = frozenset(
    {
        "/ingle.v1.EventService/WatchEvents",
        "/ingle.v1.GuestService/AttachSession",
        "/ingle.v1.GuestService/Forward",
        "/ingle.v1.VmService/StreamVmLogs",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)
"""Methods whose calls end when somebody leaves: waiting for them is in vain."""


MOST_OF_ONE_USER = 1000
"""Calls under way, on however many connections. What they wait for, all others wait for behind them."""


class Call:
    """One of them, in the task it runs in."""

    def __init__(self, calls: "Calls", method: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.method = method
        self._calls = calls
        self._task = task
        self._interrupted = False
        self._uid: int | None = None

    def admit(self, uid: int) -> None:
        """It is that user's. Raises Conflict(TOO_MANY_CALLS)."""
        self._calls.count(uid)
        self._uid = uid

    def interrupt(self) -> None:
        """Cancel it, because the server stops."""
        if not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def why_cancelled(self, error: BaseException) -> BaseException:
        """`error`, or what it stands for when it is the cancellation by `interrupt`."""
        if not self._interrupted or not isinstance(error, asyncio.CancelledError):
            return error
        self._task.uncancel()
        return Conflict(
            Reason.SERVER_STOPPING,
            "the server was stopped in the middle of this call, and ended it",
            "try again in a second: the next command starts a server",
        )

    def end(self) -> None:
        """It is over."""
        self._calls.forget(self, self._uid)


class Calls:
    """All of them."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._of: Counter[int] = Counter()
        self._none = asyncio.Event()
        self._none.set()

    def begin(self, method: str) -> Call:
        """The running task is a call of `method`."""
        call = Call(self, method)
        self._calls.add(call)
        self._none.clear()
        return call

    def count(self, uid: int) -> None:
        """One more of that user's. Raises Conflict(TOO_MANY_CALLS)."""
        if self._of[uid] >= MOST_OF_ONE_USER:
            raise Conflict(
                Reason.TOO_MANY_CALLS,
                f"user {uid} has {MOST_OF_ONE_USER} calls under way; one user can have no more",
                "wait for some of them, or end some",
            )
        self._of[uid] += 1

    def forget(self, call: Call, uid: int | None) -> None:
        """It is over, and was that user's."""
        self._calls.discard(call)
        if uid is not None:
            self._of[uid] -= 1
            if not self._of[uid]:
                del self._of[uid]
        if not self._calls:
            self._none.set()

    def end_endless(self) -> None:
        """Interrupt those that would never end by themselves."""
        for call in [call for call in self._calls if call.method in ENDLESS]:
            call.interrupt()

    def end_all(self) -> None:
        """Interrupt all."""
        for call in list(self._calls):
            call.interrupt()

    async def ended(self, timeout_seconds: float) -> bool:
        """Whether none is under way within the time. grpc's own stop doesn't wait for calls that it has cancelled."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._none.wait()
        except TimeoutError:
            return False
        return True
