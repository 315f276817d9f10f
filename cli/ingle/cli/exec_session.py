"""A guest command on this process's standard streams: stdin, output and signals in one poll loop.

Nothing is kept: output that its reader does not take stops the guest command, and a guest command that does not read
stops our reading of stdin. Memory stays constant whatever passes through.
"""

import contextlib
import errno
import os
import select
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, cast

from ingle.cli.client import Client
from ingle.cli.errors import EXIT_SIGNAL, EXIT_TIMED_OUT, failed
from ingle.cli.output import tell
from ingle.cli.stages import Stages, Stopwatch
from ingle.v1.guest_pb2 import ExecExited, ExecRequest, ExecResponse, ExecSignal, ExecStart, ExecStdinEof

if TYPE_CHECKING:
    from ingle.v1.signal_pb2 import Signal

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_READ_SIZE = 1 << 16
_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_LEAVING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)  # while no command is there to hear them
_ABORTING = (signal.SIGINT, signal.SIGTERM)


class _Aborted(Exception):
    """The person wants to leave, whatever the guest command thinks of it: the same signal came again, or came before
    there was a command."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@dataclass
class Output:
    """A message on its way to a standard stream."""

    fd: int
    rest: memoryview

    def write_some(self) -> None:
        """Write what surely can be written now: after POLLOUT a pipe takes PIPE_BUF bytes (pipe(7)), a file anything.
        A larger write would block, and with it signals and stdin."""
        whole = stat.S_ISREG(os.fstat(self.fd).st_mode)
        written = os.write(self.fd, self.rest if whole else self.rest[: select.PIPE_BUF])
        self.rest = self.rest[written:]


def run_command(client: Client, start: ExecStart, stages: Stages) -> int:
    """Run it and answer this process's exit code: the command's own, EXIT_TIMED_OUT after its timeout, 128 + signal
    when it was left to its fate by a second Ctrl-C, by one before it had begun, or by a reader of its output who went
    away.

    Raises CliError when the command could not be run to its end."""
    session = _Session(client, start)
    watch = Stopwatch()
    try:
        with _signals_to(session):
            exited = session.run(stages)
    except _Aborted as abort:
        return EXIT_SIGNAL + abort.number
    except BrokenPipeError:
        return EXIT_SIGNAL + signal.SIGPIPE
    finally:
        session.leave()
    stages.stage_ended("clean up" if start.delete_vm else "finish", watch.seconds() - session.ran_seconds)
    if exited.timed_out:
        tell(f"ingle: killed after {start.timeout.ToTimedelta().total_seconds():g} s (--timeout)")
        return EXIT_TIMED_OUT
    if exited.output_cut:
        hint = "" if start.wait_output else " (--wait-output waits for it)"
        tell(
            "ingle: the command left a process behind that still has its output open: what that says now is lost" + hint
        )
    return exited.exit_code


class _Session:
    """The state of the loop."""

    def __init__(self, client: Client, start: ExecStart) -> None:
        self.ran_seconds = 0.0
        self._connection = client.connection
        self._call = client.begin(ExecRequest(start=start), ExecResponse, last=False)
        self._stdin_open = start.open_stdin
        self._on_terminal = start.open_stdin and os.isatty(_STDIN)
        self._output: Output | None = None
        self._started = False
        self._exited: ExecExited | None = None
        self._signals: list[int] = []
        self._seen_signals: set[int] = set()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def wake_fd(self) -> int:
        """For signal.set_wakeup_fd: poll() alone would go on after a signal (PEP 475)."""
        return self._wake_write

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """The first goes to the guest command, by way of the loop; the second ends us, even amid a write."""
        if number in _ABORTING and number in self._seen_signals:
            raise _Aborted(number)
        self._seen_signals.add(number)
        self._signals.append(number)

    def run(self, stages: Stages) -> ExecExited:
        """Pump until the call has ended."""
        watch = Stopwatch()
        while True:
            self._take_responses()
            if self._exited and not self.ran_seconds:
                self.ran_seconds = watch.seconds()
                stages.stage_ended("command", self.ran_seconds)
            if self._output is None and self._call.stream.status is not None:
                break
            self._forward_signals()
            self._move()
        if self._exited is None:
            raise failed("GUEST_PROTOCOL", "the call ended without the command's exit code")
        return self._exited

    def leave(self) -> None:
        """End the call if it is not over: the server kills the command."""
        self._call.cancel()
        self._connection.flush()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _take_responses(self) -> None:
        while self._output is None and (response := self._call.take()) is not None:
            match response.WhichOneof("message"):
                case "stdout_data":
                    self._output = Output(_STDOUT, memoryview(response.stdout_data))
                case "stderr_data":
                    self._output = Output(_STDERR, memoryview(response.stderr_data))
                case "started":
                    self._started = True
                case "exited":
                    self._exited = response.exited
                    self._stdin_open = False

    def _forward_signals(self) -> None:
        while self._signals:
            if not self._started and self._signals[0] in _LEAVING:
                raise _Aborted(self._signals[0])
            number = cast("Signal.ValueType", self._signals.pop(0))
            self._call.send(ExecRequest(signal=ExecSignal(signal=number)))

    def _move(self) -> None:
        """Wait until something can move, and move it."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        events = self._connection.flush()
        if not self._connection.lost:
            poller.register(self._connection, events)
        if self._output is not None:
            poller.register(self._output.fd, select.POLLOUT)
        if self._stdin_open and self._call.stream.can_send:
            poller.register(_STDIN, select.POLLIN)
        for fd, _ in poller.poll():
            if fd == self._wake_read:
                os.read(fd, 512)
            elif fd == _STDIN:
                self._read_stdin()
            elif self._output is not None and fd == self._output.fd:
                self._write_output()
            else:
                self._connection.receive()

    def _read_stdin(self) -> None:
        try:
            data = os.read(_STDIN, _READ_SIZE)
        except BlockingIOError:  # somebody made it non-blocking, and read first
            return
        except OSError as error:
            if error.errno == errno.EIO and self._on_terminal:
                raise _Aborted(signal.SIGHUP) from error
            raise failed("INVALID_ARGUMENT", f"can't read stdin: {error.strerror}") from error
        if not data and self._on_terminal and not os.isatty(_STDIN):
            raise _Aborted(signal.SIGHUP)  # it was hung up, which is not the end of what was to be typed
        self._stdin_open = bool(data)
        self._call.send(ExecRequest(stdin_data=data) if data else ExecRequest(stdin_eof=ExecStdinEof()))

    def _write_output(self) -> None:
        assert self._output is not None
        with contextlib.suppress(BlockingIOError):
            self._output.write_some()
        if not self._output.rest:
            self._output = None


@contextlib.contextmanager
def _signals_to(session: _Session) -> Iterator[None]:
    # What was ignored when we began (by nohup, or a shell's &) is not ours to take up.
    heeded = [number for number in _FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, session.on_signal) for number in heeded}
    former_wake_fd = signal.set_wakeup_fd(session.wake_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(former_wake_fd)
        for number, handler in former.items():
            signal.signal(number, handler)


def stdin_wanted(wish: bool | None) -> bool:
    """Whether to pass stdin on: as wished, else when it is not a terminal. A closed one never is."""
    if sys.stdin is None or sys.stdin.closed:
        return False
    return not sys.stdin.isatty() if wish is None else wish
