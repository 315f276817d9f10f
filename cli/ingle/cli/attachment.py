"""A guest's session on this process's terminal: keys, screen, size and signals in one poll loop."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType

from ingle.cli import tty
from ingle.cli.client import Client
from ingle.cli.errors import EXIT_SIGNAL, SERVER_UNREACHABLE, CliError, failed
from ingle.cli.exec_session import Output
from ingle.cli.output import tell
from ingle.v1.guest_pb2 import AttachSessionRequest, AttachSessionResponse, AttachSessionStart

_READ_SIZE = 1 << 12
_HOLD_SECONDS = 0.3  # for a key that may be the first of those that mean us
_LEAVING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)  # from elsewhere: keys go to the guest


_SESSION_GOES_ON = {SERVER_UNREACHABLE, "SERVER_STOPPING"}


class _Left(Exception):
    """A signal told us to go; the session may go on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@dataclass(frozen=True)
class _End:
    """How it ended: the command's exit code, or None when it goes on without us."""

    exit_code: int | None
    stolen: bool = False


def attach(client: Client, start: AttachSessionStart, detach_keys: bytes, come_back: str) -> int:
    """Show the session until it ends or is left, and answer this process's exit code: the command's, or 0 when the
    detach keys were typed. `come_back` is the command line to return with; "{id}" in it is the session's.

    Raises CliError, also when somebody else takes the session over."""
    tty.require_terminal(start.vm, start.create.argv)
    attachment = _Attachment(client, start, detach_keys)
    try:
        attachment.await_attached()
        with _signals_to(attachment), tty.raw_terminal():
            try:
                end = attachment.run()
            except BaseException:
                tty.renew_screen()
                raise
            if end.exit_code is None:
                tty.renew_screen()
    except _Left as left:
        return EXIT_SIGNAL + left.number
    except CliError as error:
        failure = error.failures[0]
        if failure.reason not in _SESSION_GOES_ON or start.create.end_with_viewer or not attachment.attached:
            raise
        raise CliError(replace(failure, remedy=come_back.format(id=attachment.session_id))) from error
    finally:
        attachment.leave()
    way_back = come_back.format(id=attachment.session_id)
    if end.stolen:
        raise failed("SESSION_ATTACHED", f"somebody else took session {attachment.session_id} over", way_back)
    if end.exit_code is None:
        tell(f"detached, and the session goes on; to come back: {way_back}")
        return 0
    return end.exit_code


class _Attachment:
    """The state of the loop."""

    def __init__(self, client: Client, start: AttachSessionStart, detach_keys: bytes) -> None:
        self.session_id = start.session_id
        self.attached = False
        self._connection = client.connection
        start.size.CopyFrom(tty.terminal_size() or start.size)
        self._call = client.begin(AttachSessionRequest(start=start), AttachSessionResponse, last=False)
        self._keys = tty.KeyWatch(detach_keys)
        self._held_until = 0.0
        self._output: Output | None = None
        self._end: _End | None = None
        self._resized = False
        self._going = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def wake_fd(self) -> int:
        """For signal.set_wakeup_fd: poll() alone would go on after a signal (PEP 475)."""
        return self._wake_write

    def await_attached(self) -> None:
        """Wait for the session, with the terminal as it is: Ctrl-C ends this. Raises CliError."""
        response = self._call.next()
        if response is None or response.WhichOneof("message") != "attached":
            raise failed("GUEST_PROTOCOL", "the call did not begin with a session")
        self.session_id = response.attached.id
        self.attached = True

    def run(self) -> _End:
        """Pump until the session ends or is left."""
        try:
            return self._pump()
        finally:
            self._going = True

    def _pump(self) -> _End:
        while True:
            self._take_responses()
            if self._output is None:
                if self._end is not None:
                    return self._end
                if self._call.stream.status is not None:
                    raise failed("GUEST_PROTOCOL", "the call ended without the command's exit code")
            if self._resized:
                self._tell_size()
            self._move()

    def leave(self) -> None:
        """End the call if it is not over: the session is detached."""
        self._call.cancel()
        self._connection.flush()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """The terminal has another size, or we shall go: but not twice, lest the terminal stay as it is now."""
        if number == signal.SIGWINCH:
            self._resized = True
        elif not self._going:
            self._going = True
            raise _Left(number)

    def _tell_size(self) -> None:
        self._resized = False
        if (size := tty.terminal_size()) is not None:
            self._call.send(AttachSessionRequest(resize=size))

    def _take_responses(self) -> None:
        while self._output is None and self._end is None and (response := self._call.take()) is not None:
            match response.WhichOneof("message"):
                case "output":
                    self._output = Output(tty.STDOUT, memoryview(response.output))
                case "scrollback":
                    self._output = Output(tty.STDOUT, memoryview(response.scrollback))
                case "exited":
                    self._end = _End(response.exited.exit_code)
                case "detached":
                    self._end = _End(None, stolen=True)

    def _move(self) -> None:
        """Wait until something can move, and move it."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        events = self._connection.flush()
        if not self._connection.lost:
            poller.register(self._connection, events)
        if self._output is not None:
            poller.register(self._output.fd, select.POLLOUT)
        if self._call.stream.can_send:
            poller.register(tty.STDIN, select.POLLIN)
        for fd, _ in poller.poll(self._held_milliseconds()):
            if fd == self._wake_read:
                os.read(fd, 512)
            elif fd == tty.STDIN:
                self._read_keys()
            elif self._output is not None and fd == self._output.fd:
                self._write_output()
            else:
                self._connection.receive()
        if self._held_milliseconds() == 0 and self._call.stream.can_send:
            self._call.send(AttachSessionRequest(input=self._keys.release()))

    def _held_milliseconds(self) -> float | None:
        """How long keys are still held back; None when there are none."""
        return max(0.0, self._held_until - time.monotonic()) * 1000 if self._keys.holds else None

    def _read_keys(self) -> None:
        try:
            typed = os.read(tty.STDIN, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal was hung up
            typed = b""
        if not typed:
            raise _Left(signal.SIGHUP)
        passed, detach = self._keys.feed(typed)
        self._held_until = time.monotonic() + _HOLD_SECONDS
        if passed:
            self._call.send(AttachSessionRequest(input=passed))
        if detach:
            self._end, self._output = _End(None), None

    def _write_output(self) -> None:
        assert self._output is not None
        try:
            self._output.write_some()
        except BlockingIOError:
            return
        except OSError as error:  # EIO: the terminal was hung up
            raise _Left(signal.SIGHUP) from error
        if not self._output.rest:
            self._output = None


@contextlib.contextmanager
def _signals_to(attachment: _Attachment) -> Iterator[None]:
    # What was ignored when we began (by nohup, or a shell's &) is not ours to take up.
    heeded = [number for number in (*_LEAVING, signal.SIGWINCH) if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, attachment.on_signal) for number in heeded}
    former_wake_fd = signal.set_wakeup_fd(attachment.wake_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(former_wake_fd)
        for number, handler in former.items():
            signal.signal(number, handler)
