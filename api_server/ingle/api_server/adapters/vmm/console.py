"""What a guest's kernel said last. A guest can write what it likes there: it tells lies about nobody but itself."""

import os
import re

from ingle.api_server.host.files import open_log
from ingle.api_server.ports.engine import Ending, VmPaths

_TAIL_BYTES = 64 * 1024  # a panic is followed by a few KiB: registers and a call trace
_LONGEST_REASON = 200
_LAST_BYTES = 1024  # of a kernel that ends as it was told to: a line or two
_POWERED_OFF = b"reboot: Restarting system with command 'power off'"  # by the agent; see machine/poweroff.go
_POWER_DOWN = b"reboot: Power down"
_RESTARTED = b"reboot: Restarting system"
_PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]*)")


def mark_start(paths: VmPaths) -> None:
    """What the console's log holds now is of earlier boots."""
    length = paths.console_log.stat().st_size if paths.console_log.exists() else 0
    paths.console_start.write_text(str(length))


def panic(paths: VmPaths) -> str:
    """Why the kernel of this boot gave up; empty when it did not say so."""
    found = _PANIC.search(_last_words(paths))
    return f"the guest's kernel panicked: {found[1].decode(errors='replace')[:_LONGEST_REASON]}" if found else ""


def powered_off(paths: VmPaths) -> bool:
    """Whether the kernel of this boot restarted because that is what ends a VMM."""
    return _POWERED_OFF in _last_words(paths)


def ending(paths: VmPaths) -> Ending | None:
    """How the guest of this boot ended, if its kernel said so: for a VMM whose own last words nobody heard."""
    if why := panic(paths):
        return Ending(why)
    last = _last_words(paths)[-_LAST_BYTES:]
    if _POWERED_OFF in last or _POWER_DOWN in last:
        return Ending()
    return Ending(restarts=True) if _RESTARTED in last else None


def _last_words(paths: VmPaths) -> bytes:
    try:
        start = int(paths.console_start.read_text())
        with open_log(paths.console_log, "rb") as log:
            log.seek(max(start, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return log.read()
    except (FileNotFoundError, ValueError):  # of a VMM that an older ingle started, or there was no room to say it
        return b""
