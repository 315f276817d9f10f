"""Runs operations: each is a task with a record that can be watched, cancelled, and found again after a restart."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Generic, TypeVar

from ingle.api_server.model.caller import Caller
from ingle.api_server.model.errors import Conflict, HostProblem, IngleError, Reason
from ingle.api_server.model.operation import Failure, Operation, OperationKind, OperationState, Stage
from ingle.api_server.pipeline import completed, root_cause, uninterrupted
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.store.operations import OperationStore

log = logging.getLogger(__name__)

R = TypeVar("R")

_MAKES_ROOM = frozenset(
    {OperationKind.STOP_VM, OperationKind.KILL_VM, OperationKind.DELETE_VM, OperationKind.DELETE_SNAPSHOT}
)
"""Begun even when there is no space for their record."""

_CANCELLED = Failure(Reason.OPERATION_CANCELLED, "cancelled; everything done so far was undone")


class Progress:
    """What an operation's work tells of itself. Anyone watching hears of it."""

    def __init__(self, operation: Operation, clock: Clock) -> None:
        self.operation = operation
        self._clock = clock
        self.if_cancelled = _CANCELLED
        """What is true after a cancellation that comes now; the work changes it when it passes a point of no return."""
        self._changed = asyncio.Event()

    def stage(self, name: str, text: str) -> tuple[Stage, ...]:
        """The next stage begins. Answers all so far."""
        log.info("%s: %s", name, text, extra={"target": self.operation.target_id})
        self._publish(self.operation.with_stage(name, text, self._clock.now()))
        return self.operation.stages

    def report(self, text: str, fraction: float | None) -> None:
        """The stage under way has got further."""
        self._publish(self.operation.with_progress(text, fraction))

    def warn(self, text: str) -> None:
        """Something its caller should know; nothing when `text` is empty."""
        if text and text not in self.operation.warnings:
            log.warning("%s", text, extra={"target": self.operation.target_id})
            self._publish(replace(self.operation, warnings=(*self.operation.warnings, text)))

    def found(self, target_id: str) -> None:
        """What the operation is about has come to be only now."""
        self._publish(replace(self.operation, target_id=target_id))

    def end(self, state: OperationState, failure: Failure | None) -> None:
        """Nothing follows."""
        self._publish(self.operation.ended(state, self._clock.now(), failure))

    async def watch(self) -> AsyncIterator[Operation]:
        """The operation now, then after every change. A slow watcher skips to the newest; the end is never skipped."""
        while True:
            changed, operation = self._changed, self.operation
            yield operation
            if operation.state is not OperationState.RUNNING:
                return
            await changed.wait()

    def _publish(self, operation: Operation) -> None:
        self.operation = operation
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


Work = Callable[[Progress], Awaitable[R]]


class Ongoing(Generic[R]):
    """An operation under way."""

    def __init__(self, progress: Progress, task: "asyncio.Task[R]") -> None:
        self.progress = progress
        self._task = task

    @property
    def operation(self) -> Operation:
        """As it is now."""
        return self.progress.operation

    async def result(self) -> R:
        """What the work answers, or its failure. Cancelling this call cancels the operation and waits for its undo."""
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._task.cancelled():  # the operation, not this call
                failure = self.progress.if_cancelled
                raise Conflict(failure.reason, failure.message, failure.remedy) from None
            await uninterrupted(self.cancel())  # nothing where it has just ended
            raise

    async def cancel(self) -> None:
        """Cancel, and return when everything is undone that can be: `progress.if_cancelled` says what is so then."""
        # A task cancelled before its first step ends without running any of it, and so without a word in its record.
        await asyncio.sleep(0)
        self._task.cancel()
        await asyncio.wait([self._task])


class Operations:
    """All operations of this server."""

    def __init__(self, store: OperationStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ongoing: dict[str, Ongoing[object]] = {}
        self._closing = False

    @property
    def closing(self) -> bool:
        """Whether the server is about to end: the next one may go on with what is cancelled now."""
        return self._closing

    async def begin(
        self, op_id: str, owner: int, kind: OperationKind, work: Work[R], target_id: str = ""
    ) -> Ongoing[R]:
        """Record the operation, which is that uid's, and start its work. Raises Conflict(SERVER_STOPPING).

        A stopping server still deletes: the end of a call may have promised that."""
        if self._closing and kind is not OperationKind.DELETE_VM:
            raise Conflict(Reason.SERVER_STOPPING, "the server is stopping", "try again in a second")
        operation = Operation(op_id, kind, OperationState.RUNNING, self._clock.now(), target_id, owner=owner)
        try:
            await completed(self._store.save(operation))
        except asyncio.CancelledError:
            ended = operation.ended(OperationState.CANCELLED, self._clock.now(), _CANCELLED)
            await uninterrupted(self._store.save(ended))
            raise
        except HostProblem as error:
            if error.reason is not Reason.DISK_FULL or kind not in _MAKES_ROOM:
                raise
            log.warning("an operation is not recorded: %s", error.message)
        progress = Progress(operation, self._clock)
        task = asyncio.create_task(self._run(progress, work), name=op_id)
        task.add_done_callback(_seen)
        ongoing = Ongoing(progress, task)
        self._ongoing[op_id] = ongoing  # type: ignore[assignment] # invariant, but only cancelled and watched
        return ongoing

    async def get(self, op_id: str, caller: Caller) -> Operation:
        """As it is now. Raises NotFound, also for a stranger's."""
        ongoing = self._ongoing_of(op_id, caller)
        return ongoing.operation if ongoing else await self._store.get(op_id, caller)

    async def list(self, caller: Caller, *, all_users: bool = False) -> list[Operation]:
        """The caller's, or everybody's; newest first. Raises Conflict(NOT_ADMIN)."""
        stored = await self._store.of(caller, all_users=all_users)
        return [self._ongoing[op.id].operation if op.id in self._ongoing else op for op in stored]

    async def watch(self, op_id: str, caller: Caller) -> AsyncIterator[Operation]:
        """The operation now, then after every change, up to its end. Raises NotFound."""
        ongoing = self._ongoing_of(op_id, caller)
        if ongoing is None:
            yield await self._store.get(op_id, caller)
            return
        async for operation in ongoing.progress.watch():
            yield operation

    async def cancel(self, op_id: str, caller: Caller) -> Operation:
        """Cancel it if it runs, and return when everything is undone. Raises NotFound."""
        await self.cancel_if_known(op_id, caller)
        return await self.get(op_id, caller)

    async def cancel_if_known(self, op_id: str, caller: Caller) -> None:
        """The same for a watcher that left: an operation that has ended, or does not exist for it, is fine."""
        ongoing = self._ongoing_of(op_id, caller)
        if ongoing is not None:
            await ongoing.cancel()

    def _ongoing_of(self, op_id: str, caller: Caller) -> Ongoing[object] | None:
        ongoing = self._ongoing.get(op_id)
        return ongoing if ongoing is not None and caller.knows(ongoing.operation.owner) else None

    async def close(self) -> None:
        """Begin nothing more but deletions; cancel and undo what runs."""
        self._closing = True
        while self._ongoing:
            await asyncio.gather(*(ongoing.cancel() for ongoing in list(self._ongoing.values())))

    async def _run(self, progress: Progress, work: Work[R]) -> R:
        try:
            result = await work(progress)
        except BaseException as error:
            cause = root_cause(error)
            await uninterrupted(self._end_badly(progress, cause))
            if isinstance(cause, (IngleError, asyncio.CancelledError)):
                raise cause from None
            raise
        await uninterrupted(self._end(progress, OperationState.SUCCEEDED, None))
        return result

    async def _end_badly(self, progress: Progress, cause: BaseException) -> None:
        if isinstance(cause, asyncio.CancelledError):
            await self._end(progress, OperationState.CANCELLED, progress.if_cancelled)
            return
        if not isinstance(cause, IngleError):
            log.error("operation failed unexpectedly", exc_info=cause)
        await self._end(progress, OperationState.FAILED, Failure.of(cause))

    async def _end(self, progress: Progress, state: OperationState, failure: Failure | None) -> None:
        progress.end(state, failure)
        try:
            await self._store.save(progress.operation)
        except HostProblem as error:  # what is done is done
            if error.reason is not Reason.DISK_FULL:
                raise
            log.warning("the end of an operation is not recorded: %s", error.message)
        finally:
            del self._ongoing[progress.operation.id]


def _seen(task: "asyncio.Task[R]") -> None:
    """Nobody may be waiting for the result; the failure is recorded all the same."""
    if not task.cancelled():
        task.exception()
