"""The accept gate: who may talk to the helper at all.

grpc never looks at the peer of a unix socket. So the public socket is ours: every connection's uid is checked
(SO_PEERCRED, unix(7)), then its bytes are spliced to grpc's own socket in a 0700 directory. The upstream end is bound
to an abstract name that carries the peer's identity, which handlers find in `context.peer()`.

Threads and blocking calls only: few connections, and little to get wrong as root.
"""

import errno
import logging
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX = "ingle-gate/"
_PEER = re.compile(rf"unix-abstract:{_PREFIX}uid=(\d+),gid=(\d+),pid=(\d+),n=[0-9a-f]+")
_UCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)
_CHUNK = 64 * 1024
_RETRY_SECONDS = 0.1
_TOLD_SECONDS = 60.0
_CLOSED = {errno.EBADF, errno.EINVAL}  # of accept(2); all else passes

MOST_CONNECTIONS = 32
"""Of one user. One API server needs one; more than this many are turned away."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls, as the kernel says."""

    uid: int
    gid: int
    pid: int


def peer_of(name: str) -> Peer | None:
    """Who `context.peer()` stands for; None when the call did not come through the gate."""
    match = _PEER.fullmatch(name.replace("%3D", "=").replace("%2C", ","))
    return Peer(*map(int, match.groups())) if match else None


class Gate:
    """Listens on `public`, mode 0660 with group `gid` from birth, and splices allowed peers to `upstream`.

    The caller holds the lock beside `public`, so what is there is stale. Raises OSError."""

    def __init__(self, public: Path, upstream: Path, allowed: Collection[int], gid: int) -> None:
        self._upstream = str(upstream)
        self._allowed = allowed
        self._room = {uid: threading.BoundedSemaphore(MOST_CONNECTIONS) for uid in allowed}
        self._told: dict[str, float] = {}  # when each problem was logged last, by the monotonic clock
        public.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        umask = os.umask(0o177)  # nobody but root until the group is right
        try:
            self._listener.bind(str(public))
        finally:
            os.umask(umask)
        os.chown(public, -1, gid, follow_symlinks=False)
        public.chmod(0o660)
        self._listener.listen(socket.SOMAXCONN)
        self._thread = threading.Thread(target=self._accept, name="gate", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections; those there are live until their peers or the process end."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                front, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _CLOSED:
                    return
                self._tell(f"connections have to wait: {error.strerror}")
                time.sleep(_RETRY_SECONDS)
                continue
            self._admit(front)

    def _admit(self, front: socket.socket) -> None:
        pid, uid, gid = _UCRED.unpack(front.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in self._allowed:
            log.warning("connection refused", extra={"uid": uid, "pid": pid})
            front.close()
            return
        if not self._room[uid].acquire(blocking=False):
            self._tell(f"uid {uid} has too many connections")
            front.close()
            return
        name = f"{_PREFIX}uid={uid},gid={gid},pid={pid},n={os.urandom(8).hex()}"
        try:
            threading.Thread(target=self._splice, args=(front, name, uid), name="splice", daemon=True).start()
        except RuntimeError as error:
            self._tell(f"a connection can't be taken: {error}")
            front.close()
            self._room[uid].release()

    def _splice(self, front: socket.socket, name: str, uid: int) -> None:
        try:
            with front, socket.socket(socket.AF_UNIX) as back:
                back.bind(f"\0{name}")
                back.connect(self._upstream)
                answers = threading.Thread(target=_pump, args=(back, front), name="splice back", daemon=True)
                answers.start()
                _pump(front, back)
                answers.join()
        except (OSError, RuntimeError) as error:
            self._tell(f"a connection can't be handed on: {error}")
        finally:
            self._room[uid].release()

    def _tell(self, problem: str) -> None:
        """Each kind of problem once in a while: who floods us must not flood the log."""
        now = time.monotonic()
        if now - self._told.get(problem, -_TOLD_SECONDS) >= _TOLD_SECONDS:
            self._told[problem] = now
            log.error("%s", problem)


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Move bytes until one side ends; then nobody reads or writes any more."""
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    for side in (source, target):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
