"""The accept gate: who may talk to the server at all.

grpc never looks at the peer of a unix socket. So the public socket is ours: every connection's uid is checked
(SO_PEERCRED, unix(7)), then its bytes are spliced to grpc's own socket in a 0700 directory. The upstream end is bound
to an abstract name that carries the peer's identity, which handlers find in `context.peer()`.
"""

import asyncio
import logging
import os
import pwd
import re
import secrets
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

PEER_PREFIX = "unix-abstract:ingle-gate/"
"""What `context.peer()` of a call that came through the gate begins with."""

_PEER_PID = re.compile(r"\bpid=(\d+)")
_UCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Callers:
    """Who is admitted: one user; where `gid` is given, root and the members of that group too."""

    uid: int
    gid: int | None = None

    def admit(self, uid: int, gid: int) -> bool:
        """Whether a peer with these ids may come in."""
        return uid == self.uid or (self.gid is not None and (uid == 0 or self.gid in _groups(uid, gid)))


def _groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # nobody's uid: it has what it came with
        return [gid]


def peer_pid(peer: str) -> int:
    """The process behind a `context.peer()`; 0 when it is in a pid namespace that we can't look into."""
    found = _PEER_PID.search(peer)
    return int(found[1]) if found else 0


class _Half(asyncio.Protocol):
    """One side of a splice: what it receives the other side sends, at the pace of the slower one."""

    def __init__(self) -> None:
        self.other: _Half | None = None
        self.transport: asyncio.Transport
        self._early: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def splice(self, other: "_Half") -> None:
        """Join with `other`, and hand over what came before it was there."""
        self.other = other
        for data in self._early:
            other.transport.write(data)
        self._early.clear()
        if self._ended:
            other.transport.write_eof()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._ended = True
        if self.other is not None and self.other.transport.can_write_eof() and not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class _Front(_Half):
    """The caller's side."""

    def __init__(self, upstream: Path, callers: Callers) -> None:
        super().__init__()
        self._upstream = upstream
        self._callers = callers
        self._linking: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer: socket.socket = transport.get_extra_info("socket")
        pid, uid, gid = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if not self._callers.admit(uid, gid):
            log.warning("connection refused", extra={"uid": uid, "pid": pid})
            self.transport.abort()
            return
        # Nothing more is read until it can be handed on: what waits is bounded by one read.
        self.transport.pause_reading()
        name = f"{PEER_PREFIX.partition(':')[2]}uid={uid},gid={gid},pid={pid},n={secrets.token_hex(8)}"
        self._linking = asyncio.create_task(self._link(name))

    async def _link(self, name: str) -> None:
        upstream = socket.socket(socket.AF_UNIX)
        try:
            upstream.setblocking(False)
            upstream.bind(f"\0{name}")
            await asyncio.get_running_loop().sock_connect(upstream, str(self._upstream))
            _, back = await asyncio.get_running_loop().create_unix_connection(_Half, sock=upstream)
        except OSError as error:
            log.error("the gRPC socket does not answer: %s", error)
            upstream.close()
            self.transport.abort()
            return
        if self.transport.is_closing():
            back.transport.close()
            return
        back.splice(self)
        self.splice(back)
        self.transport.resume_reading()


async def open_gate(public: Path, upstream: Path, callers: Callers) -> asyncio.Server:
    """Listen on `public`, which only callers can open from its birth on, and splice them to `upstream`.

    For start-up: the umask is changed for the moment of the bind, and the caller holds the lock beside `public`, so
    that what is there is stale. Raises OSError."""
    public.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    umask = os.umask(0o177)
    try:
        listener.bind(str(public))
    finally:
        os.umask(umask)
    if callers.gid is not None:
        if public.stat().st_gid != callers.gid:
            os.chown(public, -1, callers.gid)
        public.chmod(0o660)
    return await asyncio.get_running_loop().create_unix_server(
        lambda: _Front(upstream, callers), sock=listener, backlog=_BACKLOG
    )
