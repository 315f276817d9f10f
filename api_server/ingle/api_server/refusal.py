"""What a caller is told whom gRPC can't serve: for a connection of its own the process has too few descriptors.

One answer to the first call, by hand: a status in HTTP/2's frames (RFC 9113), its headers in HPACK's plainest form
(RFC 7541, 6.2.2), as gRPC's PROTOCOL-HTTP2 document has it for a call that fails at once.
"""

import asyncio
import base64
import socket
import struct

from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.ids import new_op_id
from ingle.api_server.rpc.errors import raw_trailers

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER = struct.Struct(">HBBBI")  # length (its upper 16 bits, then 8), type, flags, stream
_HEADERS, _SETTINGS, _GOAWAY = 1, 4, 7
_ACK, _END_STREAM_AND_HEADERS = 1, 5
_STATUS_200 = b"\x88"  # of the static table
_MOST_READ = 64 * 1024
_PATIENCE_SECONDS = 1.0


async def refuse(peer: socket.socket, error: IngleError) -> None:
    """Answer the first call that comes within a second; the caller closes the connection. Raises OSError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_PATIENCE_SECONDS):  # TimeoutError is an OSError
        await loop.sock_sendall(peer, _frame(_SETTINGS, 0, 0, b""))
        said = b""
        while (stream := _first_call(said)) is None:
            data = await loop.sock_recv(peer, _MOST_READ)
            if not data or len(said) > _MOST_READ:
                return
            said += data
        answer = _frame(_SETTINGS, _ACK, 0, b"") + _frame(_HEADERS, _END_STREAM_AND_HEADERS, stream, _headers(error))
        await loop.sock_sendall(peer, answer + _frame(_GOAWAY, 0, 0, struct.pack(">II", stream, 0)))
        peer.shutdown(socket.SHUT_WR)
        while await loop.sock_recv(peer, _MOST_READ):  # what is left unread would reset the connection
            pass


def _first_call(said: bytes) -> int | None:
    """The stream of the first call in what a client has said so far."""
    offset = len(_PREFACE)
    while len(said) >= offset + _HEADER.size:
        upper, lower, kind, _, stream = _HEADER.unpack_from(said, offset)
        if kind == _HEADERS:
            return int(stream) & 0x7FFFFFFF
        offset += _HEADER.size + (upper << 8 | lower)
    return None


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def _headers(error: IngleError) -> bytes:
    encoded = _STATUS_200 + _literal("content-type", b"application/grpc")
    for name, value in raw_trailers(new_op_id(), error):
        encoded += _literal(name, base64.b64encode(value) if name.endswith("-bin") else value)
    return encoded


def _literal(name: str, value: bytes) -> bytes:
    return b"\0" + _string(name.encode()) + _string(value)


def _string(value: bytes) -> bytes:
    """Its length, in seven bits and as many more as it takes (RFC 7541, 5.1), and itself."""
    length, rest = len(value), len(value) - 0x7F
    if rest < 0:
        return bytes((length,)) + value
    prefix = bytearray(b"\x7f")
    while rest >= 0x80:
        prefix.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*prefix, rest)) + value
