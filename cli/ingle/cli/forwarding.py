"""Connections of this host to servers in a guest: any number of them in one poll loop.

Nothing is kept: what the local side does not take stops the guest's server, and a server that does not read stops our
reading. Each direction ends by itself, and a broken connection on one side breaks the other.
"""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Protocol

from ingle.cli.client import Call, Client
from ingle.cli.errors import CliError, failed
from ingle.cli.exec_session import Output
from ingle.cli.forward_rules import Target
from ingle.cli.listeners import Listener
from ingle.cli.output import tell
from ingle.v1 import vm_pb2
from ingle.v1.guest_pb2 import ForwardEof, ForwardRequest, ForwardResponse, ForwardStart, TcpTarget

_READ_SIZE = 1 << 18
_MOST_LINKS = 256  # descriptors are few; further callers wait to be accepted
_LOOK_SECONDS = 2.0
_RESET = struct.pack("ii", 1, 0)  # struct linger: closing breaks the connection, see socket(7)
_STDIN, _STDOUT = 0, 1
_VM_GONE = {"VM_ENDED", "VM_NOT_FOUND", "WRONG_STATE"}


class LocalEnd(Protocol):
    """The side of a forwarded connection that is on this host. All raise OSError when it is broken."""

    @property
    def read_fd(self) -> int: ...

    @property
    def write_fd(self) -> int: ...

    @property
    def tells_when_broken(self) -> bool:
        """Whether poll() can tell that without reading, and what is unread is worth nothing then."""

    def read(self) -> bytes:
        """What is there; empty at the end. BlockingIOError when nothing is."""

    def write_some(self, data: memoryview) -> int:
        """Write what can be written without waiting."""

    def end_writing(self) -> None:
        """Let the other side see the end."""

    def close(self, *, broken: bool) -> None:
        """Be done; `broken`: the other side shall know that it was no good end."""


class SocketEnd:
    """Somebody who connected to us."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)
        self.tells_when_broken = sock.family != socket.AF_UNIX
        if self.tells_when_broken:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def read_fd(self) -> int:
        return self._socket.fileno()

    @property
    def write_fd(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        return self._socket.recv(_READ_SIZE)

    def write_some(self, data: memoryview) -> int:
        return self._socket.send(data)

    def end_writing(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self, *, broken: bool) -> None:
        if broken and self.tells_when_broken:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()


class StandardStreams:
    """Our stdin and stdout, as a program like ssh uses them that has us make its connection."""

    read_fd, write_fd, tells_when_broken = _STDIN, _STDOUT, False

    def read(self) -> bytes:
        return os.read(_STDIN, _READ_SIZE)

    def write_some(self, data: memoryview) -> int:
        output = Output(_STDOUT, data)
        output.write_some()
        return len(data) - len(output.rest)

    def end_writing(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, _STDOUT)
        os.close(nowhere)

    def close(self, *, broken: bool) -> None:
        pass


class Link:
    """One forwarded connection: the local end, and the call that leads to the guest's server."""

    def __init__(self, client: Client, start: ForwardStart, end: LocalEnd) -> None:
        self.end = end
        self.done = False
        self.failure: CliError | None = None
        self._call: Call[ForwardResponse] = client.begin(ForwardRequest(start=start), ForwardResponse, last=False)
        self._local_ended = False
        self._guest_ended = False
        self._writing_ended = False
        self._pending: memoryview | None = None

    def register(self, poller: select.poll) -> None:
        """Say what can be waited for on this host's side."""
        if self._local_ended and self._writing_ended:
            return
        wanted = {self.end.read_fd: 0, self.end.write_fd: 0} if self.end.tells_when_broken else {}
        if not self._local_ended and self._call.stream.can_send:
            wanted[self.end.read_fd] = wanted.get(self.end.read_fd, 0) | select.POLLIN
        if self._pending is not None:
            wanted[self.end.write_fd] = wanted.get(self.end.write_fd, 0) | select.POLLOUT
        for fd, events in wanted.items():
            poller.register(fd, events)

    def ready(self, fd: int, events: int) -> None:
        """Something can move on this host's side."""
        try:
            if fd == self.end.write_fd and self._pending is not None and events & ~select.POLLIN:
                self._write()
            if fd == self.end.read_fd and not self._local_ended and self._call.stream.can_send:
                self._read()
            elif self.end.tells_when_broken and events & (select.POLLERR | select.POLLHUP):
                self._leave()
        except BlockingIOError:
            return
        except OSError:
            self._leave()

    def advance(self) -> None:
        """Take what the guest's server sent."""
        try:
            while not self.done and self._pending is None and (response := self._call.take()) is not None:
                match response.WhichOneof("message"):
                    case "data":
                        self._pending = memoryview(response.data)
                    case "eof":
                        self._guest_ended = True
            self._end_if_all_is_said()
        except CliError as error:
            self.failure = error
            self._finish(broken=True)
        except OSError:
            self._leave()

    def leave(self) -> None:
        """Break it, unless it is done."""
        if not self.done:
            self._leave()

    def _end_if_all_is_said(self) -> None:
        if self._pending is not None or self.done:
            return
        if self._guest_ended and not self._writing_ended:
            self._writing_ended = True
            self.end.end_writing()
        if self._call.stream.status is not None:
            self._finish(broken=not self._guest_ended)

    def _read(self) -> None:
        data = self.end.read()
        self._local_ended = not data
        self._call.send(ForwardRequest(data=data) if data else ForwardRequest(eof=ForwardEof()), last=not data)

    def _write(self) -> None:
        assert self._pending is not None
        self._pending = self._pending[self.end.write_some(self._pending) :]
        if not self._pending:
            self._pending = None
            self.advance()

    def _leave(self) -> None:
        self._call.cancel()
        self._finish(broken=True)

    def _finish(self, *, broken: bool) -> None:
        self.done = True
        self._pending = None
        with contextlib.suppress(OSError):
            self.end.close(broken=broken)


class Forwarder:
    """Carries connections until the VM ends, which raises CliError."""

    def __init__(self, client: Client, vm: vm_pb2.Vm, listeners: Sequence[Listener] = ()) -> None:
        self._client = client
        self._vm = vm
        self._listeners = {listener.socket.fileno(): listener for listener in listeners}
        self._links: dict[Link, str] = {}
        self._look: Call[vm_pb2.GetVmResponse] | None = None
        self._next_look = time.monotonic() + _LOOK_SECONDS

    def run(self) -> None:
        """Serve whoever connects, for ever."""
        try:
            while True:
                self._step()
        finally:
            self._close()

    def run_one(self, target: Target, end: LocalEnd) -> None:
        """Carry one connection to its end. Raises CliError when the guest's side is broken."""
        link = self._connect(target, end, "")
        try:
            while not link.done:
                self._step()
        finally:
            self._close()
        if link.failure is not None:
            raise link.failure

    def _step(self) -> None:
        for link in self._links:
            link.advance()
        self._forget_those_done()
        self._look_at_vm()
        poller = select.poll()
        events = self._client.connection.flush()
        if not self._client.connection.lost:
            poller.register(self._client.connection, events)
        if len(self._links) < _MOST_LINKS:
            for fd in self._listeners:
                poller.register(fd, select.POLLIN)
        by_fd = {fd: link for link in self._links for fd in (link.end.read_fd, link.end.write_fd)}
        for link in self._links:
            link.register(poller)
        for fd, ready in poller.poll(max(0.0, self._next_look - time.monotonic()) * 1000):
            if fd in by_fd:
                by_fd[fd].ready(fd, ready)
            elif fd in self._listeners:
                self._accept(self._listeners[fd])
            else:
                self._client.connection.receive()

    def _accept(self, listener: Listener) -> None:
        try:
            accepted, _ = listener.socket.accept()
        except OSError:  # it has left already; or there are too many descriptors, which those that end will free
            return
        self._connect(listener.rule.target, SocketEnd(accepted), str(listener.rule.local))

    def _connect(self, target: Target, end: LocalEnd, name: str) -> Link:
        start = ForwardStart(vm=self._vm.id)
        if target.path:
            start.unix_path = target.path
        else:
            start.tcp.CopyFrom(TcpTarget(host=target.host, port=target.port))
        link = Link(self._client, start, end)
        self._links[link] = name
        return link

    def _forget_those_done(self) -> None:
        for link in [link for link in self._links if link.done]:
            name = self._links.pop(link)
            failure = link.failure and link.failure.failures[0]
            if failure and failure.reason in _VM_GONE:
                self._next_look = time.monotonic()
            elif name and failure and failure.reason != "CONNECTION_RESET":
                hint = f" ({failure.remedy.replace(self._vm.id, self._vm.name)})" if failure.remedy else ""
                tell(f"ingle: {name}: {failure.message}{hint}")

    def _look_at_vm(self) -> None:
        """Notice when the VM ends, also while nobody is connected."""
        if self._look is not None and self._look.stream.readable:
            call, self._look = self._look, None
            if call.result().vm.state != vm_pb2.VM_STATE_RUNNING:
                raise failed(
                    "WRONG_STATE",
                    f"VM {self._vm.name!r} does not run any more: nothing is forwarded",
                    f"ingle vm start {self._vm.name}",
                )
        if self._look is None and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._look = self._client.begin(vm_pb2.GetVmRequest(vm=self._vm.id), vm_pb2.GetVmResponse)

    def _close(self) -> None:
        for link in self._links:
            link.leave()
        self._client.connection.flush()
