"""Signals by their names, as images have them."""

import re
from signal import Signals

LARGEST = 64

_FIRST_REAL_TIME, _LAST_REAL_TIME = 34, 64  # of the C library: the kernel's first two are its own
_REAL_TIME = re.compile(r"RTM(?:IN(?:\+([0-9]{1,2}))?|AX(?:-([0-9]{1,2}))?)")


def signal_number(text: str) -> int:
    """SIGQUIT, QUIT, 3 or SIGRTMIN+3, as a number of 1 to 64; 0 for what is none, since an image may say anything."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isdecimal() and name.isascii():
        number = int(name[:3])
        return number if number <= LARGEST else 0
    if match := _REAL_TIME.fullmatch(name):
        from_first = name.startswith("RTMIN")
        number = _FIRST_REAL_TIME + int(match[1] or 0) if from_first else _LAST_REAL_TIME - int(match[2] or 0)
        return number if _FIRST_REAL_TIME <= number <= _LAST_REAL_TIME else 0
    found = Signals.__members__.get(f"SIG{name}")
    return 0 if found is None else int(found)
