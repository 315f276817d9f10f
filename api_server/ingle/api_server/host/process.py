"""Long-lived processes that may outlive this one: VMMs.

A Process is held by a pidfd, so a recycled pid can never be mistaken for it, and waiting needs no polling. It may be a
child of ours or of a server that is gone.
"""

import asyncio
import ctypes
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ingle.api_server.host.descriptors import lower_limit
from ingle.api_server.host.files import open_log

_libc = ctypes.CDLL(None, use_errno=True)
_PF_EXITING = 0x4  # in the flags of /proc/PID/stat: set before anything of a process is taken down
_PIDFD_GETFD = 438  # the same on every architecture; see pidfd_getfd(2)
_NICEST = 19


class Process:
    """One process. Make it with `spawn` or `adopt`; `close` lets go of it without touching it."""

    def __init__(self, pid: int, start_time: int, pidfd: int, child: "subprocess.Popen[bytes] | None") -> None:
        self.pid = pid
        self.start_time = start_time
        self._pidfd = pidfd
        self._child = child
        self._gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, self._on_exit)

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        directory: Path,
        stderr: Path,
        stdout: Path | None = None,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> "Process":
        """Start `argv` in its own session, its stderr and, unless that has a file of its own, its stdout in the file
        `stderr`.

        It costs a vfork (0.2 ms): what the process does then never holds up the event loop. Raises OSError."""
        with (
            open_log(stderr, "ab") as errors,
            nullcontext(errors) if stdout is None else open_log(stdout, "ab") as output,
            _undisturbed_at_file_limits(),
        ):
            child = subprocess.Popen(
                argv,
                cwd=directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                pass_fds=pass_fds,
                start_new_session=True,
                restore_signals=False,
            )
        # An unreaped child keeps its pid, so none of these calls can meet another process.
        try:
            lower_limit(child.pid)
            started = start_time_of(child.pid)
            assert started is not None
            return cls(child.pid, started, os.pidfd_open(child.pid), child)
        except OSError:  # no descriptor is left, say: then nobody could watch it
            child.kill()
            child.wait()
            raise

    @classmethod
    def adopt(cls, pid: int, start_time: int) -> "Process | None":
        """The process with this pid and start time, unless it is gone."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        # Opened first and compared then: the pidfd is now known to be of the process that has this start time.
        if start_time_of(pid) != start_time:
            os.close(pidfd)
            return None
        return cls(pid, start_time, pidfd, None)

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it (negative: a signal); None while it runs, and for ever when it was not our child."""
        return None if self._child is None else self._child.poll()

    @property
    def gone(self) -> bool:
        """Whether it was seen to have ended."""
        return self._gone.is_set()

    @property
    def file_limit(self) -> int | None:
        """Beyond which offset it writes to no file; None when there is no limit, or no process any more."""
        try:
            soft, _ = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        except (ProcessLookupError, PermissionError):
            return None
        return None if soft == resource.RLIM_INFINITY else soft

    def limit_files(self, offset: int) -> None:
        """Set that. It holds whoever lives on; one that is gone is fine."""
        with suppress(ProcessLookupError, PermissionError):
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            soft = offset if hard == resource.RLIM_INFINITY else min(offset, hard)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def signal(self, number: int) -> None:
        """Send a signal; a process that is gone is fine."""
        if self.gone:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    async def wait(self, timeout_seconds: float | None = None) -> bool:
        """Whether it is gone within the time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True

    def take_socket(self, descriptor: int) -> socket.socket:
        """One of its sockets, now ours as well. Raises OSError: this takes the right to trace it."""
        taken: int = _libc.syscall(_PIDFD_GETFD, self._pidfd, descriptor, 0)
        if taken < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return socket.socket(fileno=taken)

    def close(self) -> None:
        """Stop watching. The process lives on."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            if self._child is not None:
                self._child.poll()  # reaps one that has ended just now; nobody will look again

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        if self._child is not None:
            self._child.wait()  # at once: the pidfd is readable because it can be reaped
        self._gone.set()


def start_time_of(pid: int) -> int | None:
    """Clock ticks since boot (field 22 of /proc/PID/stat, see proc(5)), or None when there is no such process."""
    stat = _stat(pid)
    return None if stat is None else int(stat[19])


def parent_of(pid: int) -> int | None:
    """Its parent's pid, or None when there is no such process."""
    stat = _stat(pid)
    return None if stat is None else int(stat[1])


@contextmanager
def _undisturbed_at_file_limits() -> Iterator[None]:
    """What is started has the signal SIGXFSZ blocked, also where it would handle it, and only fails to write. Ignored,
    as it is here, it would end a Firecracker."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGXFSZ})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def lives(pid: int, start_time: int) -> bool:
    """Whether that very process lives: one that nobody has waited for yet does not, see proc(5)."""
    stat = _stat(pid)
    return stat is not None and int(stat[19]) == start_time and stat[0] not in {b"Z", b"X"}


def has_its_files(pid: int, start_time: int) -> bool:
    """Whether that very process lives, and has not begun to end: then what it ever held open and has not closed itself
    it holds still. A pidfd tells of an end some time after the files were closed."""
    stat = _stat(pid)
    return stat is not None and int(stat[19]) == start_time and not int(stat[6]) & _PF_EXITING


def find(matches: Callable[[list[str]], bool]) -> list[Process]:
    """Live processes of our uid whose argv `matches`."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != os.getuid():
                continue
            argv = Path(entry.path, "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended while we looked, or became somebody else's
        if matches(argv):
            started = start_time_of(int(entry.name))
            process = None if started is None else Process.adopt(int(entry.name), started)
            if process is not None:
                found.append(process)
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time so far. Raises FileNotFoundError when there is no such process."""
    stat = _stat(pid)
    if stat is None:
        raise FileNotFoundError(pid)
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Resident set size. Raises FileNotFoundError when there is no such process."""
    return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[bytes] | None:
    """/proc/PID/stat from its third field on, see proc(5), or None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses and may hold anything; the last ')' ends it.
    return stat[stat.rindex(b")") + 1 :].split()


def yield_processors(pid: int) -> None:
    """Have all threads of a process, and those that they start, run when others leave something; gone is fine.

    Linux has a niceness of each thread, see sched(7)."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), _NICEST)
