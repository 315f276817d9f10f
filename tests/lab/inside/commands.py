"""Commands, run as users of the lab and as root."""

import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ingle.api_server.adapters.kernel import modules

SECONDS = 180
"""Nothing takes so long; a command that does is killed, and its test fails."""


class Preloaded:
    """`ingle` with its modules loaded: see preloaded.py. Its socket is in a directory of root's."""

    def __init__(self, python: str, directory: Path) -> None:
        self._path = str(directory / "preloaded.sock")
        command = [python, str(Path(__file__).with_name("preloaded.py")), self._path]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """Commands that run are left to themselves."""
        self._process.kill()
        self._process.wait()

    def run(self, user: str, argv: Sequence[str], env: dict[str, str], streams: Sequence[IO[bytes]]) -> int:
        """The exit code of `ingle` with these arguments, in the user's home. Raises TimeoutExpired."""
        request = {"user": user, "argv": argv, "env": env, "cwd": env["HOME"]}
        with self._connection() as connection:
            socket.send_fds(connection, [json.dumps(request).encode()], [stream.fileno() for stream in streams])
            pid = int(connection.recv(64))
            try:
                code = connection.recv(64)
                connection.recv(1)  # its end
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(["ingle", *argv], SECONDS) from None
        assert code, f"ingle {shlex.join(argv)}: ended by a signal"
        return int(code)

    def _connection(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(SECONDS)
        while True:
            try:
                connection.connect(self._path)
            except (FileNotFoundError, ConnectionRefusedError):
                assert self._process.poll() is None, "preloaded.py has ended"
                time.sleep(0.1)
            else:
                return connection


@dataclass(frozen=True)
class User:
    """A user of the lab, logged in. `preloaded`: what their `ingle` is, where it is not started anew each time."""

    name: str
    preloaded: Preloaded | None = None

    def run(self, *argv: str, code: int | None = 0, stdin: str | None = None, merged: bool = False) -> str:
        """Run a command as a login of this user would, assert its exit code, and answer its stdout. `code` None: any
        will do. `merged`: together with its stderr."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write((stdin or "").encode())
            given.seek(0)
            ended = self._run(argv, (given, out, out if merged else err))
            out.seek(0), err.seek(0)
            told, complaints = out.read().decode(), err.read().decode()
        assert code in {None, ended}, f"{shlex.join(argv)}: exit code {ended}\n{told}\n{complaints}"
        return told

    @property
    def state(self) -> Path:
        """Where this user's ingle keeps its state."""
        return Path(pwd.getpwnam(self.name).pw_dir) / ".local/state/ingle"

    def _run(self, argv: Sequence[str], streams: tuple[IO[bytes], IO[bytes], IO[bytes]]) -> int:
        env = self._environment()
        if self.preloaded is not None and argv[0] == "ingle":
            return self.preloaded.run(self.name, argv[1:], env, streams)
        command = ["/usr/sbin/runuser", "-u", self.name, "--", *argv]
        stdin, out, err = streams
        return subprocess.run(
            command, cwd=env["HOME"], env=env, check=False, stdin=stdin, stdout=out, stderr=err, timeout=SECONDS
        ).returncode

    def _environment(self) -> dict[str, str]:
        entry = pwd.getpwnam(self.name)
        return {
            "HOME": entry.pw_dir,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/ingle/bin",
            "USER": self.name,
            "XDG_RUNTIME_DIR": f"/run/user/{entry.pw_uid}",
            # What is measured by coverage stays measured.
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
        }


def lab_run(*argv: str, code: int | None = 0) -> str:
    """Run a command as root, assert its exit code, and answer its stdout. `code` None: any will do."""
    ended = subprocess.run(argv, check=False, text=True, capture_output=True, timeout=SECONDS)
    assert code in {None, ended.returncode}, (
        f"{shlex.join(argv)}: exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    )
    return ended.stdout


def few_modules(root: Path, release: str) -> Path:
    """Of the modules of a kernel below `root`, those that a guest begins with, in a directory that any user reads: to
    pack all of them takes a minute in here."""
    few = Path("/srv/few-modules", release)
    if not few.exists():
        few.mkdir(parents=True)
        installed = root / "lib/modules" / release
        shutil.copy(installed / "modules.builtin", few)
        for name in (*modules.NEEDED, *modules.WELCOME):
            said = lab_run("modprobe", "-d", str(root), "-S", release, "--show-depends", name, code=None)
            for path in [line.split()[1] for line in said.splitlines() if line.startswith("insmod ")]:
                shutil.copy(path, few)
    return few


def with_kernel_and_image(user: User, kernel: Path) -> User:
    """The user's ingle has both, from files: nothing is fetched. For the machine's server that is root's to do, since
    these are names that everybody's VMs go by."""
    few = few_modules(Path("/"), kernel.name.removeprefix("vmlinuz-"))
    user.run("ingle", "kernel", "import", str(kernel), "--modules", str(few), "--name", "debian")
    user.run("ingle", "image", "register", "--rootfs", "/opt/lab/debian.ext4", "--name", "debian:bookworm")
    return user
