"""The journalled step runner: the only undo code in the project.

A pipeline is a list of steps. A step that acquires something knows how to give it back, from ids alone, whether or
not it got that far: the same undo serves a failure, a cancellation, and a server that was killed and started again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.exhaustion import exhaustion
from ingle.api_server.model.operation import Stage
from ingle.api_server.model.resource import Resource
from ingle.api_server.ports.store.journal import Journal, JournalEntry

log = logging.getLogger(__name__)

_RETRY_SECONDS = (0.1, 0.5, 2.0, 5.0, 10.0)
"""Between tries of an undo. Who waits for it holds what it is about: nobody else has made anything of it meanwhile."""

Announce = Callable[[str, str], tuple[Stage, ...]]
"""Called with a step's name and text before it runs; answers all that was announced, which goes into the journal with
the next intent: so that it is known of an operation whose server is killed, but for what was under way."""


class Target(Protocol):
    """What steps work on: at least, whose operation it is and which resource it is about."""

    @property
    def op_id(self) -> str:
        """The operation."""

    @property
    def resource(self) -> Resource:
        """What is made, changed or taken away. An operation may run a pipeline for each of many."""


T_contra = TypeVar("T_contra", bound=Target, contravariant=True)
T = TypeVar("T", bound=Target)


class Step(Protocol[T_contra]):
    """One move of a pipeline."""

    @property
    def name(self) -> str:
        """Short and stable: it is stored in the journal."""

    @property
    def text(self) -> str:
        """What it does, for a person."""

    async def run(self, target: T_contra) -> None:
        """Do it. Cancelled, it may leave half of it to undo."""


@runtime_checkable
class Undoable(Protocol):
    """A step that acquires something."""

    @property
    def name(self) -> str:
        """As in Step."""

    async def undo(self, target: Any) -> None:
        """Give back whatever `run` may have acquired: all, half or nothing of it. Idempotent, never cancelled."""


@runtime_checkable
class Conditional(Protocol[T_contra]):
    """A step that some targets don't need: neither run nor undone then, nor told of."""

    def needed(self, target: T_contra) -> bool:
        """Whether this one does, as it is now."""


async def run(steps: Sequence[Step[T]], target: T, journal: Journal, announce: Announce) -> None:
    """Run `steps` in order and close the operation's journal of this resource. A cancellation that comes with the last
    of that comes too late.

    When one fails or is cancelled, it and all steps before it are undone in reverse order, none of which cancellation
    can interrupt. Then the failure is raised: as it was when every undo worked, else as the first member of an
    exception group whose others are the undos' failures (their journal entries stay, for recovery)."""
    begun: list[Step[T]] = []
    stages: tuple[Stage, ...] = ()
    try:
        for step in steps:
            if isinstance(step, Conditional) and not step.needed(target):
                continue
            begun.append(step)
            if isinstance(step, Undoable):
                await journal.intend(JournalEntry(target.op_id, target.resource, step.name), stages)
            stages = announce(step.name, step.text)
            await step.run(target)
        await uninterrupted(journal.close(target.op_id, target.resource))
    except BaseException as failure:
        log.info("undoing after %r", failure, extra={"steps": [step.name for step in begun]})
        errors = await uninterrupted(undo(begun, target, journal))
        if errors:
            raise BaseExceptionGroup("a step failed, and so did undoing", [failure, *errors]) from failure
        raise


async def undo(steps: Sequence[Step[Any]], target: Target, journal: Journal) -> list[Exception]:
    """Undo `steps` in reverse order; one that fails never stops the others. Answers the failures."""
    errors: list[Exception] = []
    for step in reversed(steps):
        if not isinstance(step, Undoable):
            continue
        try:
            await _undo(step, target, journal)
        except Exception as error:  # the others must still be undone; the caller raises it
            log.exception("undo of step %s failed", step.name)
            errors.append(error)
    return errors


async def _undo(step: Undoable, target: Target, journal: Journal) -> None:
    """What the host has too little of, such as descriptors, others give back soon."""
    for wait_seconds in (*_RETRY_SECONDS, None):
        try:
            await step.undo(target)
            await journal.forget(JournalEntry(target.op_id, target.resource, step.name))
            return
        except Exception as error:
            cause = root_cause(error)
            passes = isinstance(cause, HostProblem) and cause.reason is Reason.HOST_EXHAUSTED
            if wait_seconds is None or not passes:
                raise
            log.warning("undo of step %s is tried again: %s", step.name, cause)
        await asyncio.sleep(wait_seconds)


def root_cause(error: BaseException) -> BaseException:
    """The failure that started it all; where the host had too little of something, an error that says so."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return exhaustion(error) or error


R = TypeVar("R")


async def completed(work: Coroutine[Any, Any, R]) -> R:
    """Await `work` to its end; a cancellation that came meanwhile is raised then, in place of its result."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await uninterrupted(_settled(task))
        raise


async def _settled(task: "asyncio.Task[Any]") -> None:
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()):
        log.error("a call that was cancelled failed as well", exc_info=error)


async def uninterrupted(work: Coroutine[Any, Any, R]) -> R:
    """Await `work` to its end however often the caller is cancelled meanwhile.

    A cancellation that comes is swallowed: this is for code that is about to raise anyway, or to be done."""
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()
