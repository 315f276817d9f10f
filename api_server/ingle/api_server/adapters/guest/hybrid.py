"""Firecracker's vsock, which it calls hybrid: on the host it is a unix socket that wants to be told the guest's port.

A line `CONNECT <port>`, in one piece, is answered with a line `OK <a port of the host's>`; where nobody listens on the
guest's port, with the end of the stream; by a guest that has no driver yet or stands still, not at all. Firecracker's
docs/vsock.md has more.
"""

import asyncio
import socket
from pathlib import Path

from ingle.api_server.host import sockets
from ingle.api_server.model.guest import HybridVsockAddress

_ANSWER_SECONDS = 10.0
_BUSY_SECONDS = 0.01
_LONGEST_ANSWER = 32
_QUEUE = 1024 * 1024  # bytes a unix socket holds: it wakes who waits to send when a quarter of that is left


async def connect(address: HybridVsockAddress) -> socket.socket:
    """A stream to the agent, who has said nothing yet. Raises OSError, TimeoutError among them."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.setblocking(False)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await _reach(stream, Path(address.path))
                await asyncio.get_running_loop().sock_sendall(stream, b"CONNECT %d\n" % address.port)
                answer = await _line(stream)
        except TimeoutError:
            raise TimeoutError(f"nothing was said in {_ANSWER_SECONDS:.0f} s") from None
        if not answer.startswith(b"OK "):
            raise ConnectionError("its VMM speaks another protocol" if answer else "it does not listen")
    except BaseException:
        stream.close()
        raise
    return stream


async def _reach(stream: socket.socket, path: Path) -> None:
    """A unix socket is connected at once, or has as many waiting as it takes."""
    while True:
        try:
            with sockets.short_path(path) as name:
                return stream.connect(name)
        except BlockingIOError:
            await asyncio.sleep(_BUSY_SECONDS)


async def _line(stream: socket.socket) -> bytes:
    """Up to and with the end of the line, and not a byte more: what follows is the agent's. Less, where the stream ends
    or no line is as long."""
    said = b""
    while not said.endswith(b"\n") and len(said) < _LONGEST_ANSWER:
        byte = await asyncio.get_running_loop().sock_recv(stream, 1)
        if not byte:
            break
        said += byte + (b"" if byte == b"\n" else _rest_of_line(stream))
    return said


def _rest_of_line(stream: socket.socket) -> bytes:
    """As much of it as has come by now."""
    try:
        there = stream.recv(_LONGEST_ANSWER, socket.MSG_PEEK)
        return stream.recv(there.find(b"\n") + 1 or len(there)) if there else b""
    except BlockingIOError:
        return b""
