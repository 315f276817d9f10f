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
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.host.descriptors import most_descriptors
from ingle.api_server.host.sockets import short_path

log = logging.getLogger(__name__)

PEER_PREFIX = "unix-abstract:ingle-gate/"
"""What `context.peer()` of a call that came through the gate begins with."""

_PEER_PID = re.compile(r"\bpid=(\d+)")
_UCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)
_RETRY_SECONDS = 0.1
_LEAVE_SECONDS = 10.0  # for what a caller said before it left, to somebody who doesn't listen
_SHARE = 16
_MOST_OF_ONE_USER = 1024


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
        self.ended = False
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def splice(self, other: "_Half") -> None:
        """Join with `other`, and hand over what came before it was there."""
        self.other = other
        if self.transport.is_closing():
            other.transport.close()
        for data in self._early:
            other.transport.write(data)
        self._early.clear()
        if self.ended:
            other.transport.write_eof()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.write_eof()
            if self.other.ended:  # nothing comes from either side any more
                self.other.transport.close()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        if self.other is not None:
            self.other.transport.close()


class Gate:
    """Listens on `public`, which only callers can open from its birth on, and splices them to `upstream`.

    One user has so many connections and no more: each costs three of the descriptors that everybody needs."""

    def __init__(self, public: Path, upstream: Path | str, callers: Callers) -> None:
        """For start-up: the umask is changed for the moment of the bind, and the caller holds the lock beside `public`,
        so that what is there is stale. Raises OSError."""
        self._upstream = str(upstream)
        self._callers = callers
        self._most = min(_MOST_OF_ONE_USER, most_descriptors() // _SHARE)
        self._open: Counter[int] = Counter()
        self._turned_away: set[int] = set()
        self._told = False
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        self._public = public
        self._accepting: asyncio.Task[None] | None = None
        self.listen()

    def listen(self) -> None:
        """Listen on `public`, once more where it was taken away. Raises OSError."""
        listener = _listen(self._public, self._callers)
        status = self._public.stat()
        self._identity = (status.st_dev, status.st_ino)
        if self._accepting is not None:
            self._accepting.cancel()
        self._accepting = asyncio.create_task(self._accept(listener), name="gate")
        self._accepting.add_done_callback(lambda _: listener.close())

    @property
    def reachable(self) -> bool:
        """Whether `public` still leads here."""
        try:
            status = self._public.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def close(self) -> None:
        """Take no more connections; those that are spliced live on."""
        if self.reachable:
            self._public.unlink()
        if self._accepting is not None:
            self._accepting.cancel()

    def hang_up(self) -> None:
        """Close what is spliced: no call is under way any more, and grpc would take its leave with an error code."""
        for connection in self._connections:
            connection.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        """Asyncio's own server would try again at once, and log it each time, while there are no descriptors."""
        while True:
            try:
                peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                self._tell("connections have to wait", error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            task = asyncio.create_task(self._admit(peer))
            self._connections[task] = peer
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Also of one that was hung up on before it began."""
        self._connections.pop(task).close()

    def _tell(self, what: str, error: OSError) -> None:
        """Once, until all is well again."""
        if not self._told:
            log.error("%s: %s", what, error)
        self._told = True

    async def _admit(self, peer: socket.socket) -> None:
        """Splice it, if it may come in."""
        pid, uid, gid = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if not self._callers.admit(uid, gid):
            log.warning("connection refused", extra={"uid": uid, "pid": pid})
            return
        if self._open[uid] >= self._most:
            if uid not in self._turned_away:  # once: who floods us must not flood the log
                log.warning("too many connections", extra={"uid": uid, "pid": pid, "most": self._most})
            self._turned_away.add(uid)
            return
        self._open[uid] += 1
        try:
            await self._splice(peer, f"uid={uid},gid={gid},pid={pid},n={secrets.token_hex(8)}")
        except OSError as error:
            self._tell("a connection can't be handed on", error)
        finally:
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]
                self._turned_away.discard(uid)

    async def _splice(self, peer: socket.socket, identity: str) -> None:
        """Until both sides have ended. Nothing is read of the caller before it can be handed on."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as upstream:
            upstream.setblocking(False)
            upstream.bind(f"\0{PEER_PREFIX.partition(':')[2]}{identity}")
            await loop.sock_connect(upstream, self._upstream)
            _, back = await loop.create_unix_connection(_Half, sock=upstream)
            try:
                _, front = await loop.connect_accepted_socket(_Half, peer)
                try:
                    front.splice(back)
                    back.splice(front)
                    self._told = False
                    await front.lost.wait()
                finally:
                    front.transport.abort()
                back.transport.close()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LEAVE_SECONDS):
                        await back.lost.wait()
            finally:  # the loop forgets the socket first: once closed, its number may be another's
                back.transport.abort()


def _listen(public: Path, callers: Callers) -> socket.socket:
    public.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.setblocking(False)
        umask = os.umask(0o177)
        try:
            with short_path(public) as name:
                listener.bind(name)
        finally:
            os.umask(umask)
        if callers.gid is not None:
            if public.stat().st_gid != callers.gid:
                os.chown(public, -1, callers.gid)
            public.chmod(0o660)
        listener.listen(socket.SOMAXCONN)
    except BaseException:
        listener.close()
        raise
    return listener


async def open_gate(public: Path, upstream: Path, callers: Callers) -> Gate:
    """Listen. As of Gate."""
    return Gate(public, upstream, callers)
