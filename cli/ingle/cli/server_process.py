"""The per-user server, started on demand.

Two command lines may start one at the same time: the servers settle it with a lock, the loser leaves with EX_TEMPFAIL,
and both command lines find the winner listening. The same lock is held by a server that is still stopping.
"""

import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from ingle.cli import paths, waiting
from ingle.cli.errors import SERVER_FAILED_TO_START, SERVER_UNREACHABLE, CliError, failed

SERVER_COMMAND = (sys.executable, "-m", "ingle.api_server")
"""By its name alone: the command line knows nothing of the server's code, which may not be installed."""

_START_LIMIT_SECONDS = 60.0
_RETRY_SECONDS = 0.005
_AGAIN_SECONDS = 0.1
_EX_TEMPFAIL = 75  # sysexits.h: another server holds the lock
_LOG_LINES = 8
_TRY = "  try: "
_LITTLE = 64 * 1024
_UCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)
_OTHERS_WRITE = 0o022


def connect(address: paths.Address) -> socket.socket | None:
    """A connected socket, or None when nobody listens. Raises CliError when it is there and can't be used, or somebody
    else's.

    This user's server listens in its state directory as well, where it is found from a session that has another runtime
    directory, or none any more."""
    sock = _connect(str(address.path))
    if sock is not None and not address.of_system:
        _refuse_stranger(sock, address)
    if sock is None and address.own:
        paths.refuse_foreign(paths.state_directory(), paths.OWN_STATE)
        try:
            directory = os.open(paths.state_directory(), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        sock = _connect(f"/proc/self/fd/{directory}/{paths.LASTING_SOCKET}")
        os.close(directory)
    return sock


def _connect(path: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise failed(SERVER_UNREACHABLE, f"can't connect to {path}: {error.strerror}") from error
    return sock


def _refuse_stranger(sock: socket.socket, address: paths.Address) -> None:
    """What we say to a server is for us, it, and root. Where others may make files they may have been there first."""
    _, uid = _peer(sock)
    trusted = {0, os.getuid()}
    if uid in trusted:
        return
    directory = address.path.parent.stat()
    if directory.st_uid not in trusted or directory.st_mode & _OTHERS_WRITE:
        sock.close()
        message = f"uid {uid} listens on {address.path}, and nobody but you and root is trusted in that directory"
        raise failed(SERVER_UNREACHABLE, message, address.remedy)


def _peer(sock: socket.socket) -> tuple[int, int]:
    """Pid and uid of who listens."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def connect_or_start(address: paths.Address) -> socket.socket:
    """A connected socket; the user's own server is started when it does not run yet."""
    sock = connect(address)
    if sock is not None:
        return sock
    if not address.own:
        raise failed(
            SERVER_UNREACHABLE,
            f"no server listens on {address.path}",
            address.remedy,
        )
    return start(address)


def start(address: paths.Address) -> socket.socket:
    """Start the server and wait until it listens. It outlives this process, and its terminal."""
    log = paths.server_log()
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with paths.open_log(log, "ab") as file:
            log_start = file.tell()
    except OSError as error:
        raise failed(
            SERVER_FAILED_TO_START,
            f"can't write {error.filename}: {error.strerror}",
            paths.OWN_STATE,
        ) from error
    waiting.begins("Starting the server")
    try:
        return _wait_until_it_listens(address, log, log_start)
    finally:
        waiting.ended()


def _wait_until_it_listens(address: paths.Address, log: Path, log_start: int) -> socket.socket:
    process = _spawn(log)
    refused = False
    deadline = time.monotonic() + _START_LIMIT_SECONDS
    while time.monotonic() < deadline:
        if (sock := connect(address)) is not None:
            if _peer(sock)[0] != process.pid:  # another one was first: ours would take its place when it stops
                process.terminate()
            return sock
        if process.poll() == _EX_TEMPFAIL:
            refused = True
            time.sleep(_AGAIN_SECONDS)
            process = _spawn(log)  # the other one may be on its way in or out; only trying again tells
        elif process.returncode is not None:
            raise _start_failed(f"the server ended with exit code {process.returncode}", log, log_start)
        time.sleep(_RETRY_SECONDS)
    what = f"the server did not listen on {address.path} within {_START_LIMIT_SECONDS:g} s"
    if refused and (holder := _holder()):
        raise failed(
            SERVER_FAILED_TO_START, f"{what}: pid {holder} has {log.parent}, and does not answer", f"kill {holder}"
        )
    raise _start_failed(what, log, log_start)


def _holder() -> str:
    """The pid of the server that has the state: the first line of its lock."""
    try:
        pid = (paths.state_directory() / "lock").read_text().partition("\n")[0]
    except (OSError, ValueError):
        return ""
    return pid if pid.isdigit() else ""


def _spawn(log: Path) -> "subprocess.Popen[bytes]":
    with paths.open_log(log, "ab") as output:
        return subprocess.Popen(
            [*SERVER_COMMAND, "serve"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )


def why_it_failed(what: str, said: list[str]) -> tuple[str, str]:
    """Message and remedy for a server that ended with `said` as its last lines."""
    remedy = f"see {paths.server_log()}"
    if said and said[-1].startswith(_TRY):
        *said, last = said
        remedy = last.removeprefix(_TRY)
    message = "\n".join([f"{what}:", *(f"    {line}" for line in said[-_LOG_LINES:])]) if said else what
    if any("No module named" in line and "'ingle" not in line for line in said):
        return message, "pip install 'ingle[server]'"
    return message, remedy


def _is_full(directory: Path) -> bool:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize < _LITTLE


def _start_failed(what: str, log: Path, log_start: int) -> CliError:
    with paths.open_log(log, "rb") as file:
        file.seek(log_start if log.stat().st_size >= log_start else 0)  # a new one, if it has become large just now
        said = file.read().decode(errors="replace").splitlines()
    if not said and _is_full(log.parent):
        return failed(
            SERVER_FAILED_TO_START, f"{what}, and there is no space in {log.parent} to say why", f"df -h {log.parent}"
        )
    return failed(SERVER_FAILED_TO_START, *why_it_failed(what, said))
