"""The accept gate: who may talk to the server at all.

grpc never looks at the peer of a unix socket. So the public socket is ours: every connection's uid is checked
(SO_PEERCRED, unix(7)), then its bytes are spliced to grpc's own socket in a 0700 directory. The upstream end is bound
to an abstract name that carries the peer's identity, which handlers find in `context.peer()`.
"""

import asyncio
import logging
import os
import re
import secrets
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.host.descriptors import Spare, most_descriptors
from ingle.api_server.host.peers import Peer, peer_of
from ingle.api_server.host.sockets import short_path
from ingle.api_server.model.caller import ROOT, Caller
from ingle.api_server.model.errors import Conflict, HostProblem, IngleError, Reason
from ingle.api_server.model.exhaustion import exhaustion, no_descriptors
from ingle.api_server.refusal import refuse

log = logging.getLogger(__name__)

_PREFIX = "ingle-gate/"
_IDENTITY = re.compile(rf"unix-abstract:{_PREFIX}uid=(\d+),admin=([01]),pid=(\d+),")
_RETRY_SECONDS = 0.1
_LEAVE_SECONDS = 10.0  # for what a caller said before it left, to somebody who doesn't listen
_SHARE = 16
_MOST_OF_ONE_USER = 1024
_HANDED_ON = 2  # descriptors: our end of the connection to gRPC, and gRPC's
_TOLD_AT_ONCE = 16  # of one user's connections that are one too many; others are closed without a word

Upstream = Callable[[int], Awaitable[str]]
"""The path of the socket to which the calls of a uid go. Raises IngleError."""


@dataclass(frozen=True, slots=True)
class Callers:
    """Who is admitted: one user, whose server it is; where `gid` is given, root and the members of that group as well.
    Of those, root and the members of the group `admins` are admins."""

    uid: int
    gid: int | None = None
    admins: int | None = None

    def caller(self, peer: Peer) -> Caller | None:
        """Who that is; None for nobody who may come in."""
        if self.gid is None:
            return Caller(peer.uid, admin=True) if peer.uid == self.uid else None
        admin = peer.uid == ROOT or self.admins in peer.groups
        return Caller(peer.uid, admin) if peer.uid in {ROOT, self.uid} or self.gid in peer.groups else None


def identity_of(peer: str) -> tuple[Caller, int] | None:
    """Who is behind a `context.peer()`, and their process: 0 when it is in a pid namespace that we can't look into.
    None of a call that did not come through a gate."""
    found = _IDENTITY.match(peer)
    return (Caller(int(found[1]), admin=found[2] == "1"), int(found[3])) if found else None


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
    """Listens on `public`, which only callers can open from its birth on, and splices them to their `upstream`.

    One user has so many connections and no more: each costs three of the descriptors that everybody needs. When there
    are none left, callers are told so: that takes one of those that are kept back."""

    def __init__(self, public: Path, upstream: Upstream, callers: Callers, spare: Spare) -> None:
        """For start-up: the umask is changed for the moment of the bind, and the caller holds the lock beside `public`,
        so that what is there is stale. Raises OSError."""
        self._upstream = upstream
        self._callers = callers
        self._spare = spare
        self._most = min(_MOST_OF_ONE_USER, most_descriptors() // _SHARE)
        self._open: Counter[int] = Counter()
        self._turned_away: set[int] = set()
        self._telling: Counter[int] = Counter()
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
        self._spare.close()

    def hang_up(self, uid: int | None = None) -> None:
        """Close what is spliced, or what is so for one user: no call is under way any more, and grpc would take its
        leave with an error code."""
        for connection, peer in self._connections.items():
            if uid is None or peer_of(peer).uid == uid:
                connection.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        """Asyncio's own server would try again at once, and log it each time, while there are no descriptors."""
        while True:
            try:
                peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                await self._refuse_next(listener, error)
                continue
            if not self._spare.is_whole():  # gRPC, which needs one too, would leave it waiting without a word
                with peer:
                    await self._refuse(peer, no_descriptors())
                continue
            task = asyncio.create_task(self._admit(peer))
            self._connections[task] = peer
            task.add_done_callback(self._end)

    async def _refuse_next(self, listener: socket.socket, error: OSError) -> None:
        """Take one with what is kept back, and say why it can't stay. Not even that may be possible."""
        self._tell("connections are refused", error)
        with self._spare.lent():
            try:
                peer, _ = listener.accept()
            except OSError:
                await asyncio.sleep(_RETRY_SECONDS)
                return
            with peer:
                peer.setblocking(False)
                await self._refuse(peer, exhaustion(error) or no_descriptors())

    async def _refuse(self, peer: socket.socket, problem: IngleError) -> None:
        """One after the other: each holds a descriptor."""
        if self._admitted(peer) is not None:
            with suppress(OSError):
                await refuse(peer, problem)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Also of one that was hung up on before it began."""
        self._connections.pop(task).close()

    def _tell(self, what: str, error: OSError | MemoryError) -> None:
        """Once, until all is well again."""
        if not self._told:
            log.error("%s: %s", what, exhaustion(error) or error)
        self._told = True

    async def _admit(self, peer: socket.socket) -> None:
        """Splice it, if it may come in."""
        admitted = self._admitted(peer)
        if admitted is None:
            return
        caller, pid = admitted
        uid = caller.uid
        if self._open[uid] >= self._most:
            if uid not in self._turned_away:  # once: who floods us must not flood the log
                log.warning("too many connections", extra={"uid": uid, "pid": pid, "most": self._most})
            self._turned_away.add(uid)
            await self._tell_too_many(peer, uid)
            return
        self._open[uid] += 1
        try:
            path = await self._upstream(uid)
            await self._splice(peer, path, f"uid={uid},admin={int(caller.admin)},pid={pid},n={secrets.token_hex(8)}")
        except IngleError as error:
            await self._refuse(peer, error)
        except (OSError, MemoryError) as error:
            self._tell("a connection can't be handed on", error)
        finally:
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]
                self._turned_away.discard(uid)

    async def _tell_too_many(self, peer: socket.socket, uid: int) -> None:
        """Why it is closed, unless as many are being told."""
        if self._telling[uid] >= _TOLD_AT_ONCE:
            return
        self._telling[uid] += 1
        try:
            await self._refuse(
                peer,
                Conflict(
                    Reason.TOO_MANY_CALLS,
                    f"user {uid} has {self._most} connections to the server; one user can have no more",
                    "end some commands, or make more calls on one connection",
                ),
            )
        finally:
            self._telling -= Counter((uid,))

    def _admitted(self, connection: socket.socket) -> tuple[Caller, int] | None:
        """Who it is, and its pid; None for who may not come in."""
        try:
            peer = peer_of(connection)
        except OSError as error:  # of a kernel that can't say, nobody is let in
            self._tell("nobody knows who connects", error)
            return None
        caller = self._callers.caller(peer)
        if caller is None:
            log.warning("connection refused", extra={"uid": peer.uid, "pid": peer.pid})
            return None
        return caller, peer.pid

    async def _splice(self, peer: socket.socket, path: str, identity: str) -> None:
        """Until both sides have ended. Nothing is read of the caller before it can be handed on."""
        loop = asyncio.get_running_loop()
        self._spare.lend(_HANDED_ON)
        with socket.socket(socket.AF_UNIX) as upstream:
            upstream.setblocking(False)
            upstream.bind(f"\0{_PREFIX}{identity}")
            await loop.sock_connect(upstream, path)
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


def clear(public: Path) -> None:
    """Have nothing where a socket is to be. Raises HostProblem where that is a directory."""
    try:
        public.unlink(missing_ok=True)
    except IsADirectoryError:
        what = f"{public} is a directory, where the server's socket belongs"
        raise HostProblem(Reason.INTERNAL, what, f"mv {public} {public}.old") from None


def _listen(public: Path, callers: Callers) -> socket.socket:
    clear(public)
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
    """Listen, and hand all calls to one `upstream`. As of Gate."""

    async def everybodys(uid: int) -> str:
        return str(upstream)

    return Gate(public, everybodys, callers, Spare())
