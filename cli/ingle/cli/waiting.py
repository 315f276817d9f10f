"""What takes longer than a second is told on stderr, where no live line shows it: silence looks like a fault."""

import contextlib
import os
import signal
from types import FrameType

_PATIENCE_SECONDS = 1.0
_STDERR = 2


class _Waiting:
    """What is under way in this process."""

    def __init__(self) -> None:
        self.silent = False
        self.text = ""

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
    if _WAITING.silent or text == _WAITING.text:
        return
    _WAITING.text = text
    signal.signal(signal.SIGALRM, _WAITING.tell)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE_SECONDS)


def ended() -> None:
    """Nothing is under way."""
    if _WAITING.text:
        _WAITING.text = ""
        signal.setitimer(signal.ITIMER_REAL, 0)
