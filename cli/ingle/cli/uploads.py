"""A file's content or an archive on its way to a call that takes a stream."""

import os
import select
import sys
from typing import Generic, TypeVar

from google.protobuf.message import Message

from ingle.cli.client import Call, Client
from ingle.cli.errors import failed
from ingle.v1.upload_pb2 import UploadEnd, UploadHole

_PIECE = 256 * 1024

_R = TypeVar("_R", bound=Message)


class Upload(Generic[_R]):
    """A writable that sends: `write` waits while the server does not take more, and raises CliError when it refuses.

    `request` is the type of the messages; its `data` carries the bytes. Nothing is committed unless `finish` is called:
    only when the source has truly ended."""

    def __init__(self, client: Client, call: Call[_R], request: type[Message]) -> None:
        self._client = client
        self._call = call
        self._request = request

    def write(self, data: bytes) -> int:
        """Send data of any length."""
        rest = memoryview(data)
        while rest:
            self._send(self._request(data=bytes(rest[:_PIECE])))
            rest = rest[_PIECE:]
        return len(data)

    def skip(self, size: int) -> None:
        """Send so many zeros, to a call that takes holes."""
        if size:
            self._send(self._request(hole=UploadHole(bytes=size)))

    def _send(self, message: Message) -> None:
        while not self._call.stream.can_send:
            self._raise_refusal()
            self._client.connection.wait()
        self._call.send(message)

    def write_stdin(self) -> None:
        """Send what comes from stdin, to its end. Raises CliError when that breaks, also by a terminal that is hung up,
        and as soon as the server refuses it."""
        if sys.stdin is None or sys.stdin.closed:
            raise failed(
                "INVALID_ARGUMENT", "stdin is closed, and so there is nothing to send", "</dev/null sends nothing"
            )
        stdin, connection = sys.stdin.fileno(), self._client.connection
        on_terminal, poller = os.isatty(stdin), select.poll()
        poller.register(stdin, select.POLLIN)
        ended = False
        while not ended:
            self._raise_refusal()
            poller.register(connection, connection.flush())
            for fd, _ in poller.poll():
                if fd == stdin:
                    ended = not self.write(_read(stdin))
                else:
                    connection.receive()
        if on_terminal and not os.isatty(stdin):
            raise failed("INVALID_ARGUMENT", "the terminal was hung up before the end of what was to be typed")

    def check(self) -> None:
        """Raise CliError when the server has refused it by now."""
        self._client.connection.flush()
        self._raise_refusal()

    def finish(self) -> _R:
        """All was sent; the server's answer."""
        self._call.send(self._request(end=UploadEnd()), last=True)
        return self._call.result()

    def cancel(self) -> None:
        """Leave; the server undoes what it can."""
        self._call.cancel()

    def _raise_refusal(self) -> None:
        if self._call.stream.status is not None:
            self._call.result()


def _read(stdin: int) -> bytes:
    try:
        return os.read(stdin, _PIECE)
    except OSError as error:
        raise failed("INVALID_ARGUMENT", f"can't read stdin: {error.strerror}") from error
