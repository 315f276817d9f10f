"""Keeps a server for a test, and leaves nothing of it, however the test ends: also when its process is killed.

keeper.py: makes a directory, starts a server over it, and says where that is. It goes on until its stdin ends, which is
held open by the test's process alone; or until the server ends. Then it ends the server and all its VMs, removes the
directory, and, where the server has not ended well, says what that said last.

It imports nothing of ours: the test waits for it.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_STOP_SECONDS = 60.0
_LOOK_SECONDS = 0.01
_LAST_WORDS = 6000


def keep() -> int:
    """The exit code: 0 for a server that was asked to end and did it well."""
    directory = Path(tempfile.mkdtemp(prefix="ingle-"))  # short: socket paths have room for 107 bytes
    log = directory / "server.log"
    try:
        with log.open("ab") as said:
            server = subprocess.Popen(
                [sys.executable, "-m", "ingle.testing.serve", "fake", "serve"],
                env=_environment(directory),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            print(directory, flush=True)  # noqa: T201 - the answer
            asked = _until_asked(server)
            code = server.wait(_STOP_SECONDS)
        finally:
            server.kill()
            server.wait()
            _end_vms(directory / "state")
        if asked and code == 0:
            return 0
        print(log.read_text(errors="replace")[-_LAST_WORDS:], flush=True)  # noqa: T201
        return 1
    finally:
        shutil.rmtree(directory)


def _environment(directory: Path) -> Mapping[str, str]:
    """Nothing of the caller's own ingle."""
    (directory / "run").mkdir(mode=0o700)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INGLE_")}
    own = {f"XDG_{name.upper()}_HOME": str(directory / name) for name in ("state", "cache", "config")}
    return {**inherited, **own, "INGLE_WARM": "false", "XDG_RUNTIME_DIR": str(directory / "run")}


def _until_asked(server: "subprocess.Popen[bytes]") -> bool:
    """Whether it was asked to end before it did."""
    ended = os.pidfd_open(server.pid)
    readable, _, _ = select.select([sys.stdin, ended], [], [])
    os.close(ended)
    server.terminate()
    return sys.stdin in readable


def _end_vms(state: Path) -> None:
    """VMs outlive their server. A fake VMM works in its VM's directory, its guest as well, and all ends with them."""
    while pids := list(_working_below(state)):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_SECONDS)


def _working_below(directory: Path) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, PermissionError, ProcessLookupError):
                if (entry / "cwd").readlink().is_relative_to(directory):
                    yield int(entry.name)


if __name__ == "__main__":
    sys.exit(keep())
