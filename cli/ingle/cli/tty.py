"""This process's terminal: raw while a guest has it, as it was afterwards; and the keys that mean us."""

import contextlib
import fcntl
import os
import shlex
import struct
import sys
import termios
import tty
from collections.abc import Iterator, Sequence

from ingle.cli.errors import failed
from ingle.cli.output import is_terminal
from ingle.v1.guest_pb2 import TerminalSize

STDIN, STDOUT = 0, 1

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"

# What a full-screen program may have left behind when we leave it running: the other screen, colours, a hidden cursor,
# an application keypad, reports of the mouse (ctlseqs of xterm) and bracketed paste.
_AS_NEW = b"\x1b[?1049l\x1b[0m\x1b[?25h\x1b[?1l\x1b>\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\r\n"


def require_terminal(vm: str, argv: Sequence[str] = ()) -> None:
    """Raises CliError when stdin and stdout aren't both a terminal. `vm` is where one was to be shown, `argv` the
    command on it; a shell, when there is none."""
    if not is_terminal(sys.stdin) or not is_terminal(sys.stdout):
        raise failed(
            "INVALID_ARGUMENT",
            "a terminal is needed here, on stdin and stdout",
            f"ingle vm exec {shlex.join([vm, '--', *(argv or ['sh'])])}",
        )


def term() -> dict[str, str]:
    """The variable that tells a guest program what kind of terminal this is."""
    return {name: os.environ[name] for name in ("TERM",) if os.environ.get(name)}


def terminal_size() -> TerminalSize | None:
    """The size of the terminal; None when it doesn't tell, as a serial line's."""
    packed = fcntl.ioctl(STDOUT, termios.TIOCGWINSZ, bytes(8))
    rows, columns, _, _ = struct.unpack("4H", packed)  # struct winsize, ioctl_tty(2)
    return TerminalSize(rows=rows, columns=columns) if rows and columns else None


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Every key goes through as it is, until the end of the context, however that is reached."""
    try:
        former = termios.tcgetattr(STDIN)
        tty.setraw(STDIN, termios.TCSANOW)
    except termios.error as error:
        raise failed("INVALID_ARGUMENT", f"can't use this terminal: {error.args[1]}") from error
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it was hung up: nothing is left to restore
            termios.tcsetattr(STDIN, termios.TCSANOW, former)


def renew_screen() -> None:
    """Leave the screen usable though the program that drew on it goes on elsewhere."""
    with contextlib.suppress(OSError):  # nobody looks at it any more
        os.write(STDOUT, _AS_NEW)


def parse_keys(text: str) -> bytes:
    """Keys as docker has them: letters and ctrl-X, with commas between. Empty: none. Raises ValueError."""
    return bytes(_parse_key(key) for key in text.split(",")) if text else b""


def _parse_key(key: str) -> int:
    if len(key) == 1 and key.isascii() and key.isprintable():
        return ord(key)
    name = key.removeprefix("ctrl-")
    if name != key and len(name) == 1 and (code := ord(name.upper()) - ord("@")) in range(32):
        return code
    raise ValueError(f"{key!r} is no key: give single characters, or ctrl- and one of a-z @ [ \\ ] ^ _, with commas")


class KeyWatch:
    """Looks for a sequence of keys in what is typed.

    Those that may still become it are held back for a moment, so that the guest does not see what is meant for us. Then
    they are for the guest: Ctrl-P of a shell acts by itself. The sequence is one however slowly it is typed."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._begun = b""
        self._passed = 0  # of what has begun

    @property
    def holds(self) -> bool:
        """Whether `release` has something for the guest."""
        return self._passed < len(self._begun)

    def release(self) -> bytes:
        """What was held back."""
        held = self._begun[self._passed :]
        self._passed = len(self._begun)
        return held

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What is meant for the guest, and whether the sequence was completed (what follows it is dropped)."""
        seen = self._begun + typed
        if self._keys and self._keys in seen:
            meant = seen[self._passed : seen.index(self._keys)]
            self._begun, self._passed = b"", 0
            return meant, True
        begun = next(size for size in range(len(self._keys), -1, -1) if seen.endswith(self._keys[:size]))
        over = len(seen) - begun
        meant = seen[self._passed : over]
        self._begun, self._passed = seen[over:], max(0, self._passed - over)
        return meant, False
