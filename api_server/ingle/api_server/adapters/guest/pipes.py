"""Ways to an agent for who reads when somebody asks: a socket, or a stream of a mux."""

import asyncio
import socket
from typing import Protocol

from ingle.api_server.adapters.guest import hybrid
from ingle.api_server.adapters.guest.address import check_holder
from ingle.api_server.adapters.guest.mux import Lines
from ingle.api_server.model.guest import AgentAddress, HybridVsockAddress, SerialAddress, UnixAddress, VsockAddress

_Place = str | tuple[int, int]
_QUEUE = 1024 * 1024  # bytes a unix socket holds: it wakes who waits to send when a quarter of that is left


class Pipe(Protocol):
    """Both directions of a connection. All raises OSError when it is broken."""

    async def send(self, data: bytes | memoryview) -> None:
        """Returns when all is on its way. A pipe that is over takes everything."""

    def send_now(self, header: bytes, payload: memoryview) -> int:
        """Send what leaves at once of the two, one behind the other, and answer how many bytes that was."""

    async def some(self, size: int) -> bytes:
        """What has come, at least a byte and at most so many; empty at the end."""

    async def into(self, buffer: memoryview) -> int:
        """As `some`, into a buffer."""

    def abort(self) -> None:
        """Leave at once."""


class SocketPipe:
    """A Pipe that is a socket."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes | memoryview) -> None:
        await self._loop.sock_sendall(self._stream, data)

    def send_now(self, header: bytes, payload: memoryview) -> int:
        try:
            return self._stream.sendmsg((header, payload))
        except BlockingIOError:
            return 0

    async def some(self, size: int) -> bytes:
        try:
            return self._stream.recv(size)
        except BlockingIOError:
            return await self._loop.sock_recv(self._stream, size)

    async def into(self, buffer: memoryview) -> int:
        return await self._loop.sock_recv_into(self._stream, buffer)

    def abort(self) -> None:
        self._stream.close()


async def pipe_to(address: AgentAddress, lines: Lines) -> Pipe:
    """Connect. Raises OSError, and GuestError(GUEST_UNREACHABLE) for one that is somebody else's by now."""
    if isinstance(address, SerialAddress):
        return await lines.stream(address.path)
    if isinstance(address, HybridVsockAddress):
        return SocketPipe(await hybrid.connect(address))
    family, place = _socket_address(address)
    stream = socket.socket(family, socket.SOCK_STREAM)
    try:
        stream.setblocking(False)
        if family == socket.AF_UNIX:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)
        await asyncio.get_running_loop().sock_connect(stream, place)
        check_holder(address)
    except BaseException:
        stream.close()
        raise
    return SocketPipe(stream)


def _socket_address(address: UnixAddress | VsockAddress) -> tuple[socket.AddressFamily, _Place]:
    """The family of an address, and what connect(2) takes."""
    match address:
        case UnixAddress(path):
            return socket.AF_UNIX, path
        case VsockAddress(cid=cid, port=port):
            return socket.AF_VSOCK, (cid, port)
