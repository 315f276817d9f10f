"""The API as commands see it: typed requests in, typed responses or CliError out.

A request's message type is the request of exactly one method (buf's STANDARD rules see to it), so the method's name is
never written down here: it comes from the contract itself.
"""

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Generic, Self, TypeVar

import ingle.cli.light_protobuf  # noqa: F401 - before protobuf

# isort: split
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from ingle.cli import paths, server_process, waiting
from ingle.cli.errors import SERVER_UNREACHABLE, CliError, Failure, failed
from ingle.cli.references import References
from ingle.cli.transport import OK, UNAVAILABLE, Connection, Status, Stream

API_VERSION = "1"

_FOR_US = frozenset({paths.SOCKET_VARIABLE, paths.MODE_VARIABLE})

_R = TypeVar("_R", bound=Message)


class Call(Generic[_R]):
    """One call under way. Whatever answers raises CliError when the call has failed, or the server has gone away."""

    def __init__(self, connection: Connection, stream: Stream, response_type: type[_R]) -> None:
        self._connection = connection
        self._response_type = response_type
        self.stream = stream

    def send(self, request: Message, *, last: bool = False) -> None:
        """Send one more message; `last` closes this direction."""
        self.stream.send(request.SerializeToString(), last=last)

    def take(self) -> _R | None:
        """The next response if it is here. Raises CliError when the call has failed."""
        message = self.stream.take()
        if message is not None:
            return self._response_type.FromString(message)
        if self.stream.status is not None and self.stream.status.code != OK:
            raise call_failed(self.stream.status)
        return None

    def next(self) -> _R | None:
        """Wait for the next response; None at the end of a call that went well."""
        while not self.stream.readable:
            self._connection.wait()
        return self.take()

    def result(self) -> _R:
        """The one response of a call that has one."""
        response = self.next()
        if response is None:
            raise failed("INTERNAL", "the server answered with nothing")
        return response

    def __iter__(self) -> Iterator[_R]:
        while (response := self.next()) is not None:
            yield response

    def cancel(self) -> None:
        """Leave the call; the server stops what it does for it."""
        self.stream.cancel()


class Client:
    """A connection to one server; a context manager. Calls may be under way side by side."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._references = References(self._look_up)

    def begin(self, request: Message, response_type: type[_R], *, last: bool = True) -> Call[_R]:
        """Start the call that `request` belongs to, and don't wait. `last` False keeps the sending side open.

        Where `request` names something by the beginning of an id, it is given the whole one, after a look."""
        self._references.complete(request)
        path = _method_path(request, response_type)
        stream = self.connection.begin(path, [("ingle-api-version", API_VERSION)])
        call = Call(self.connection, stream, response_type)
        call.send(request, last=last)
        waiting.begins_for_the_server(self.connection.peer_pid())
        return call

    def call(self, request: Message, response_type: type[_R]) -> _R:
        """Ask and wait for the answer. Raises CliError."""
        return self.begin(request, response_type).result()

    def all(self, request: Message, response_type: type[_R]) -> _R:
        """The same for a list, however many pages it has: one answer with the items of all. Raises CliError."""
        answer = page = self.call(request, response_type)
        while token := getattr(page, "next_page_token"):  # noqa: B009 - not every message has it
            setattr(request, "page_token", token)  # noqa: B010
            page = self.call(request, response_type)
            answer.MergeFrom(page)
        return answer

    def _look_up(self, kind: str, typed: str) -> str:
        module, noun = import_module(f"ingle.v1.{kind}_pb2"), kind.capitalize()
        request = getattr(module, f"Get{noun}Request")(**{kind: typed})
        try:
            found = self.call(request, getattr(module, f"Get{noun}Response"))
        except CliError as error:
            if error.failures[0].reason.endswith("_NOT_FOUND"):  # the call itself has more to say of that
                return typed
            raise
        item = getattr(found, kind)
        whole: str = item.id
        return typed if typed in ([item.name] if kind in {"vm", "snapshot"} else item.names) else whole

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.connection.close()


def connect() -> Client:
    """A client of the server that serves this user, which is started when need be."""
    client = _client(server_process.connect_or_start(paths.api_address()))
    if any(variable.startswith("INGLE_") and variable not in _FOR_US for variable in os.environ):
        from ingle.cli.settings import tell_differences  # noqa: PLC0415 - hardly ever

        tell_differences(client)
    return client


def connect_if_running(silence_limit: float | None = None) -> Client | None:
    """A client, or None when no server runs. `silence_limit`: as of transport.Connection."""
    sock = server_process.connect(paths.api_address())
    return None if sock is None else _client(sock, silence_limit)


def connect_to(socket: Path) -> Client:
    """A client of whoever listens on that very socket. Raises CliError."""
    sock = server_process.connect(paths.Address(socket, own=False))
    if sock is None:
        raise failed(SERVER_UNREACHABLE, f"nobody listens on {socket}")
    return _client(sock)


def duration(span: timedelta | None) -> Duration | None:
    """A span as messages hold it; None leaves the field unset."""
    if span is None:
        return None
    message = Duration()
    message.FromTimedelta(span)
    return message


def call_failed(status: Status) -> CliError:
    """The failure that a status stands for; reason and remedy travel in google.rpc.ErrorInfo."""
    if not status.details:
        message = status.message or f"gRPC status {status.code}"
        if status.op_id or status.code != UNAVAILABLE:
            return CliError(Failure("INTERNAL", message, op_id=status.op_id))
        return failed(SERVER_UNREACHABLE, message, "ingle server status")
    from google.rpc.error_details_pb2 import ErrorInfo  # noqa: PLC0415 - only failures need it
    from google.rpc.status_pb2 import Status as RpcStatus  # noqa: PLC0415 - only failures need it

    info = ErrorInfo()
    for detail in RpcStatus.FromString(status.details).details:
        if detail.Unpack(info):
            break
    op_id = status.op_id or info.metadata.get("op_id", "")
    return CliError(Failure(info.reason or "INTERNAL", status.message, info.metadata.get("remedy", ""), op_id))


def _client(sock: socket.socket, silence_limit: float | None = None) -> Client:
    connection = Connection(sock, silence_limit, waiting.server_answered)
    connection.start()
    return Client(connection)


def _method_path(request: Message, response_type: type[Message]) -> str:
    for service in request.DESCRIPTOR.file.services_by_name.values():
        for method in service.methods:
            if method.input_type is request.DESCRIPTOR and method.output_type is response_type.DESCRIPTOR:
                return f"/{service.full_name}/{method.name}"
    raise TypeError(f"no method takes {request.DESCRIPTOR.name} and answers {response_type.DESCRIPTOR.name}")
