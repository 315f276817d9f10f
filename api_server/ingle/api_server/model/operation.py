"""An operation: one change under way or done, told in stages."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from ingle.api_server.model.caller import ROOT
from ingle.api_server.model.errors import IngleError, Reason
from ingle.api_server.model.resource import ResourceKind


class OperationKind(Enum):
    """What is being changed. Names as in `ingle.v1.OperationKind`, without its prefix."""

    CREATE_VM = 1
    START_VM = 2
    STOP_VM = 3
    RESTART_VM = 4
    KILL_VM = 5
    DELETE_VM = 6
    UPDATE_VM = 7
    PULL_IMAGE = 8
    REGISTER_IMAGE = 9
    DELETE_IMAGE = 10
    PULL_KERNEL = 11
    IMPORT_KERNEL = 12
    DELETE_KERNEL = 13
    PAUSE_VM = 20
    RESUME_VM = 21
    HIBERNATE_VM = 22
    WAKE_VM = 23
    CREATE_SNAPSHOT = 40
    DELETE_SNAPSHOT = 41
    FORK_VM = 42
    RESTORE_VM = 43
    IMPORT_SNAPSHOT = 44
    FLATTEN_SNAPSHOT = 45
    WARM_IMAGE = 30
    SAVE_IMAGE = 31

    @property
    def about(self) -> ResourceKind:
        """Of what kind that is which it changes."""
        return ResourceKind[self.name.rpartition("_")[2]]


class OperationState(Enum):
    """RUNNING, or how it ended."""

    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of an operation; `finished_at` None while under way, `fraction` None when it can't be known."""

    name: str
    text: str
    started_at: datetime
    finished_at: datetime | None = None
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as data: what a failed operation keeps."""

    reason: Reason
    message: str
    remedy: str = ""

    @staticmethod
    def of(error: BaseException) -> "Failure":
        """What to tell about `error`: an IngleError speaks for itself, anything else is ours to blame."""
        if isinstance(error, IngleError):
            return Failure(error.reason, error.message, error.remedy)
        return Failure(Reason.INTERNAL, "this is a fault of ingle's", "ingle server logs")

    def as_error(self) -> IngleError:
        """The error again, for whoever waits for the operation."""
        return IngleError(self.reason, self.message, self.remedy)


@dataclass(frozen=True, slots=True)
class Operation:
    """One change. Every update is a new value, so a watcher can keep what it got."""

    id: str
    kind: OperationKind
    state: OperationState
    created_at: datetime
    target_id: str = ""
    stages: tuple[Stage, ...] = ()
    finished_at: datetime | None = None
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    """What its caller should know though it does what was asked for, each a sentence."""

    owner: int = ROOT
    """The uid of who has begun it; of what the server does by itself, the owner of what that is about."""

    def with_stage(self, name: str, text: str, now: datetime) -> "Operation":
        """The next stage begins, so the one before it is over."""
        return replace(self, stages=(*self._stages_ended(now), Stage(name, text, now)))

    def with_progress(self, text: str, fraction: float | None) -> "Operation":
        """The stage under way has got further."""
        if not self.stages:
            return self
        return replace(self, stages=(*self.stages[:-1], replace(self.stages[-1], text=text, fraction=fraction)))

    def ended(self, state: OperationState, now: datetime, failure: Failure | None = None) -> "Operation":
        """The final value."""
        return replace(self, state=state, finished_at=now, stages=self._stages_ended(now), failure=failure)

    def _stages_ended(self, now: datetime) -> tuple[Stage, ...]:
        if not self.stages or self.stages[-1].finished_at is not None:
            return self.stages
        return (*self.stages[:-1], replace(self.stages[-1], finished_at=now))
