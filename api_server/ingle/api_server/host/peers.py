"""Who is behind a connection of a unix socket, as the kernel knew it when they connected."""

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass

_SO_PEERGROUPS = 59  # <asm-generic/socket.h>; Python has no name for it, and at most 1 KiB of an option
_UCRED = struct.Struct("iII")  # pid, uid, gid: struct ucred, unix(7)
_GROUPS = 32  # room for as many at first
_GID_BYTES = 4

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that has connected. `groups` are all it had: its own group and the supplementary ones."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end. Raises OSError."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid, gid, _supplementary(connection) | {gid})


def _supplementary(connection: socket.socket) -> frozenset[int]:
    size = ctypes.c_uint32(_GROUPS * _GID_BYTES)
    while True:
        room = (ctypes.c_uint32 * (size.value // _GID_BYTES))()
        option = (connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, room, ctypes.byref(size))
        if _libc.getsockopt(*option) == 0:
            return frozenset(room[: size.value // _GID_BYTES])
        number = ctypes.get_errno()
        if number != errno.ERANGE:  # then `size` says what is needed
            raise OSError(number, f"SO_PEERGROUPS: {os.strerror(number)}")
