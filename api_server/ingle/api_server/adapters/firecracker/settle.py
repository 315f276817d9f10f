"""When a guest's vsock can be relied on.

Firecracker tells a guest that it saves to end its streams. The guest hears that when it goes on, and whoever goes on
from its memory does, too: a stream from before ends, and so does one that was made before the guest's kernel got to it.
What that kernel is told and what it is sent, it takes up one after the other. So when it turns a stream away, to a port
on which nobody listens, it has got to it.
"""

import asyncio
import logging
import socket
from pathlib import Path

from ingle.api_server.host import sockets

log = logging.getLogger(__name__)

_NOBODYS_PORT = 1
_SECONDS = 2.0  # of a guest that is well and slow; one that is not, can't make its VMM's callers wait for longer


async def settled(path: Path) -> None:
    """Return when the guest that has just gone on keeps its streams from now on, or does not answer. `path`: of the
    socket that Firecracker has for its vsock."""
    try:
        async with asyncio.timeout(_SECONDS):
            await _turned_away(path)
    except (OSError, TimeoutError) as error:
        log.warning("a guest that goes on may end a stream: %r", error, extra={"socket": str(path)})


async def _turned_away(path: Path) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.setblocking(False)
        with sockets.short_path(path) as name:
            stream.connect(name)
        await loop.sock_sendall(stream, b"CONNECT %d\n" % _NOBODYS_PORT)
        await loop.sock_recv(stream, 1)  # its end; or an answer, where something in the guest does listen
