"""What takes longer than a second is told on stderr, where no live line shows it: silence looks like a fault."""

import contextlib
import os
import signal
from types import FrameType

_PATIENCE_SECONDS = 1.0
_PATIENCE_WITH_THE_SERVER_SECONDS = 3.0  # a busy host's may take a second for its first word
_STDERR = 2


class _Waiting:
    """What is under way in this process."""

    def __init__(self) -> None:
        self.silent = False
        self.text = ""
        self.of_the_server = False

    def tell(self, _number: int, _frame: FrameType | None) -> None:
        """The second is over. Written by hand: the main program may be in the middle of a line."""
        with contextlib.suppress(OSError):
            os.write(_STDERR, f"{self.text}\n".encode())


_WAITING = _Waiting()


def keep_silent() -> None:
    """What is printed is for a program, which would not know what to make of it."""
    _WAITING.silent = True


def begins(text: str) -> None:
    """This is under way from now on, and what was before is over."""
    if text != _WAITING.text:
        _begin(text, _PATIENCE_SECONDS, of_the_server=False)


def begins_for_the_server(pid: int) -> None:
    """It was asked something. What else is under way says more."""
    if not _WAITING.text:
        text = f"Waiting for the server (pid {pid}) to answer"
        _begin(text, _PATIENCE_WITH_THE_SERVER_SECONDS, of_the_server=True)


def server_answered() -> None:
    """Or it is gone; all else that is under way goes on."""
    if _WAITING.of_the_server:
        ended()


def ended() -> None:
    """Nothing is under way."""
    if _WAITING.text:
        _WAITING.text = ""
        _WAITING.of_the_server = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def _begin(text: str, patience: float, *, of_the_server: bool) -> None:
    if _WAITING.silent:
        return
    with contextlib.suppress(ValueError):  # in a thread, which has no signals: its caller waits with words of its own
        signal.signal(signal.SIGALRM, _WAITING.tell)
        _WAITING.text = text
        _WAITING.of_the_server = of_the_server
        signal.setitimer(signal.ITIMER_REAL, patience)
