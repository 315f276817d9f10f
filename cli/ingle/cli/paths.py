"""Where the server listens and logs: this user's own, or that of a system install. Nothing is created
here: the server makes its directories, mode 0700."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ingle.cli.errors import SERVER_UNREACHABLE, CliError, failed

SOCKET_VARIABLE = "INGLE_SOCKET"
MODE_VARIABLE = "INGLE_MODE"
LASTING_SOCKET = "api.sock"
"""In the state directory."""

SOCKET_PATH_LIMIT = 107
"""Bytes; sun_path of unix(7) less its end."""

_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR})
"""What open(2) says of links, of a FIFO and a socket without another end, and of a directory."""

SYSTEM_RUNTIME_DIRECTORY = Path("/run/ingle")
"""Made by a system install, for good; its group may talk to the server."""

_OWN_RUNTIME = "set XDG_RUNTIME_DIR to a directory of your own"
OWN_STATE = "set XDG_STATE_HOME to a directory of your own"
"""What to type when those can't be used."""


@dataclass(frozen=True)
class Address:
    """The API socket. `own`: it is where this user's server belongs, so that it may be started on demand; otherwise it
    stands for exactly one server, and `remedy` says what to type when that does not listen."""

    path: Path
    own: bool
    remedy: str = ""

    @property
    def of_system(self) -> bool:
        """Whether it is the system's server that listens there."""
        return self.path.is_relative_to(SYSTEM_RUNTIME_DIRECTORY)


def api_address() -> Address:
    """$INGLE_SOCKET, else the system's server where there is one that we may talk to, else that of this user.

    $INGLE_MODE, `user` or `system`, decides between the latter two. Raises CliError for another value, for a path no
    socket can have, and for a directory that somebody else controls."""
    if named := os.environ.get(SOCKET_VARIABLE):
        remedy = f"start that server, or `unset {SOCKET_VARIABLE}` to use your own"
        return Address(_checked(Path(named).absolute()), own=False, remedy=remedy)
    if _wants_system():
        return Address(SYSTEM_RUNTIME_DIRECTORY / "api.sock", own=False, remedy="sudo ingle system restart")
    directory = runtime_directory()
    refuse_foreign(directory, _OWN_RUNTIME)
    return Address(_checked(directory / "api.sock"), own=True)


def runtime_directory() -> Path:
    """$XDG_RUNTIME_DIR/ingle, else /run/user/UID/ingle where a login manager made that, else ingle-UID for temporary
    files. The XDG base directory specification leaves that choice to programs, and has relative values ignored."""
    if (named := _absolute("XDG_RUNTIME_DIR")) is not None:
        return named / "ingle"
    login = Path(f"/run/user/{os.getuid()}")
    if login.is_dir() and login.stat().st_uid == os.getuid():
        return login / "ingle"
    import tempfile  # noqa: PLC0415 - seldom needed, and slow to load

    return Path(tempfile.gettempdir()) / f"ingle-{os.getuid()}"


def state_directory() -> Path:
    """$XDG_STATE_HOME/ingle, else ~/.local/state/ingle."""
    return (_absolute("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ingle"


def config_file() -> Path:
    """What that server is told which serves this user: /etc/ingle/config.toml, or $XDG_CONFIG_HOME/ingle/config.toml.
    Raises CliError."""
    if api_address().of_system:
        return Path("/etc/ingle/config.toml")
    return (_absolute("XDG_CONFIG_HOME") or Path.home() / ".config") / "ingle" / "config.toml"


def engines_directory() -> Path:
    """Programs that that server runs VMs in, and that no package has: root's, or below $XDG_DATA_HOME/ingle. Raises
    CliError."""
    if api_address().of_system:
        return Path("/usr/local/lib/ingle")
    return (_absolute("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "ingle" / "engines"


def server_log() -> Path:
    """What a server that was started on demand prints."""
    return state_directory() / "server.log"


def open_log(path: Path, mode: str) -> BinaryIO:
    """Whatever may have been put in its place: nothing is waited for, and no link followed.

    Raises OSError, and CliError where it is no file."""
    return cast("BinaryIO", open(path, mode, opener=_open_log))


def _open_log(path: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _no_log(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_log(path)
    return descriptor


def _no_log(path: str) -> CliError:
    return failed("NOT_A_REGULAR_FILE", f"{path} is no regular file, as a log must be", f"remove {path}")


def former_log(log: Path) -> Path:
    """What was said before, which the server keeps when its log has become large."""
    return log.with_name(log.name + ".1")


def _wants_system() -> bool:
    mode = os.environ.get(MODE_VARIABLE, "")
    if mode not in {"", "user", "system"}:
        raise failed(
            "INVALID_ARGUMENT", f"{MODE_VARIABLE} is {mode!r}: user or system is allowed", f"unset {MODE_VARIABLE}"
        )
    return mode == "system" or (mode == "" and _may_use_system())


def _may_use_system() -> bool:
    try:
        group = SYSTEM_RUNTIME_DIRECTORY.stat().st_gid
    except FileNotFoundError:
        return False
    return os.getuid() == 0 or group in {os.getegid(), *os.getgroups()}


def _absolute(variable: str) -> Path | None:
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None


def _checked(path: Path) -> Path:
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise failed(
            "PATH_TOO_LONG",
            f"the socket path {path} has {len(os.fsencode(path))} bytes; at most {SOCKET_PATH_LIMIT} are possible",
            f"set {SOCKET_VARIABLE} or XDG_RUNTIME_DIR to a shorter path",
        )
    return path


def refuse_foreign(directory: Path, remedy: str) -> None:
    """In a shared directory such as /tmp somebody else may have been first, and would see everything we send. One that
    isn't there is fine. Raises CliError."""
    try:
        info = directory.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise failed(SERVER_UNREACHABLE, f"can't look into {directory}: {error.strerror}", remedy) from error
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise failed(
            SERVER_UNREACHABLE,
            f"{directory} is not a directory of yours, so nobody there is trusted",
            remedy,
        )
