"""Signals that end us, from the first moment to the last.

While nothing is at stake, before a command begins and once it is over, the process leaves at once: an exception in the
middle of an import would show where it was, and be lost in a callback. While a command runs it is an exception, so that
every `finally` is passed: a terminal must get its cursor back, and what was begun is undone.
"""

import os
import sys

# Built in: nothing to load.
from _signal import SIG_IGN, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, default_int_handler, getsignal, signal

TYPE_CHECKING = False  # typing's own: it takes 20 ms to load
if TYPE_CHECKING:
    from collections.abc import Callable
    from sys import UnraisableHookArgs
    from types import FrameType
    from typing import Any, Never

_STDOUT = 1
_EXIT_SIGNAL = 128  # as errors.EXIT_SIGNAL, which is loaded later


def leave_at_once() -> None:
    """Nothing is at stake."""
    _on_signals(_leave, _leave)


def pass_every_finally() -> None:
    """A command begins."""
    sys.unraisablehook = _leave_all_the_same
    _on_signals(default_int_handler, _exit)


def end_with_the_reader() -> None:
    """A command goes on until it is ended, and may say nothing for long: who reads it through a pipe and leaves, as
    `head` does, ends it now, not with its next word. Nothing is at stake then."""
    import select  # noqa: PLC0415 - only few commands need them
    import stat  # noqa: PLC0415
    import threading  # noqa: PLC0415

    if not stat.S_ISFIFO(os.fstat(_STDOUT).st_mode):
        return

    def wait() -> None:
        poll = select.poll()
        poll.register(_STDOUT, 0)  # that nobody reads is told without being asked for
        poll.poll()
        os._exit(_EXIT_SIGNAL + SIGPIPE)  # a signal would be taken for one of the connection's to the server

    threading.Thread(target=wait, daemon=True).start()


def _on_signals(
    on_interrupt: "Callable[[int, FrameType | None], Any]", on_termination: "Callable[[int, FrameType | None], Any]"
) -> None:
    handlers = {SIGINT: on_interrupt, SIGTERM: on_termination, SIGHUP: on_termination, SIGQUIT: on_termination}
    for number, handler in handlers.items():
        if getsignal(number) != SIG_IGN:  # by nohup, or a shell's &: not ours to take up
            signal(number, handler)


def _leave(number: int, _frame: object) -> "Never":
    os._exit(_EXIT_SIGNAL + number)


def _exit(number: int, _frame: object) -> "Never":
    sys.exit(_EXIT_SIGNAL + number)


def _leave_all_the_same(unraisable: "UnraisableHookArgs") -> None:
    """A signal that came in a callback of the interpreter's, from where its exception leads nowhere."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        os._exit(_EXIT_SIGNAL + SIGINT)
    if isinstance(unraisable.exc_value, SystemExit):
        os._exit(unraisable.exc_value.code if isinstance(unraisable.exc_value.code, int) else _EXIT_SIGNAL + SIGTERM)
    sys.__unraisablehook__(unraisable)
