"""The stages of what a command waits for, shown while a person watches.

On a terminal one live line tells the stage (drawn by rich, which is loaded only then); with --verbose every stage
leaves a line with its time. Otherwise stderr is silent but for what takes longer than a second.
"""

import os
import signal
import time
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from ingle.cli import waiting
from ingle.cli.output import person_watches, tell
from ingle.cli.printable import one_line
from ingle.cli.quantities import format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ingle.v1.operation_pb2 import Operation

_STDERR = 2
_SHOW_CURSOR, _HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"


class Stages:
    """Shows stages; a context manager, since the live line must be gone before anything else is printed.

    `lines`: a line of each stage with its time, when it is over. `steps`: a line of whatever begins, where there is no
    live line. `live`: the line that changes; by default where a person watches."""

    def __init__(self, *, lines: bool, steps: bool = False, live: bool | None = None) -> None:
        self._lines = lines
        self._steps = steps
        self._live_wanted = person_watches() if live is None else live
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._told = 0
        self._warned = 0
        self._text = ""

    def update(self, operation: "Operation") -> None:
        """The operation has got further."""
        for stage in operation.stages[self._told :]:
            if not stage.HasField("finished_at"):
                break
            self._told += 1
            took = stage.finished_at.ToNanoseconds() - stage.started_at.ToNanoseconds()
            self.stage_ended(stage.name, took / 1e9, stage.text)
        for warning in operation.warnings[self._warned :]:
            self._warned += 1
            self._print(one_line(f"warning: {warning}"))
        if operation.stages:
            stage = operation.stages[-1]
            self.under_way(stage.text or stage.name, stage.fraction if stage.HasField("fraction") else None)

    def stage_ended(self, name: str, seconds: float, text: str = "") -> None:
        """Leave a line, if lines are wanted."""
        if self._lines:
            self._print(one_line(f"{format_seconds(seconds):>8}  {name:<18} {text}").rstrip())

    def under_way(self, text: str, fraction: float | None = None) -> None:
        """Change the live line, or tell the step. `fraction`: 0 to 1, None when it can't be known."""
        if not self._live_wanted:
            if not self._steps:
                waiting.begins(one_line(text))
            elif text != self._text:
                tell(one_line(text))
            self._text = text
            return
        if self._live is None:
            self._live, self._task = _start_live_line()
        assert self._task is not None
        percent = "" if fraction is None else f"{fraction:.0%}"
        self._live.update(self._task, description=one_line(text), percent=percent)

    def end_live(self) -> None:
        """Take the live line away: what comes now speaks for itself."""
        waiting.ended()
        if self._live is not None:
            self._live.stop()
            self._live = None
            if signal.getsignal(signal.SIGTSTP) == _stop_with_a_cursor:
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_live()

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            tell(line)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Until now."""
        return time.monotonic() - self._start


def _start_live_line() -> "tuple[Progress, TaskID]":
    from rich.console import Console  # noqa: PLC0415 - slow to load, and only a terminal needs it
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    live = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        # A field of ours: rich's own total can't go back from known to unknown, and the clock stops when it is reached.
        TextColumn("{task.fields[percent]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    live.start()
    if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
        signal.signal(signal.SIGTSTP, _stop_with_a_cursor)
    return live, live.add_task("", percent="")


def _stop_with_a_cursor(number: int, _frame: FrameType | None) -> None:
    """Ctrl-Z: the shell that has the terminal now is not to be without one."""
    os.write(_STDERR, _SHOW_CURSOR)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # Here again as soon as it goes on.
    signal.signal(number, _stop_with_a_cursor)
    os.write(_STDERR, _HIDE_CURSOR)
