"""gRPC calls over HTTP/2 on a unix socket: single-threaded, no callbacks, and no more than a command line needs.

Why not grpcio: importing it costs more than everything else a short command does taken together (six times `python -c
pass`; h2 costs one), and pumping stdin, output and signals through one poll loop needs no threads this way.

Framing and headers are those of gRPC's PROTOCOL-HTTP2 document; flow control is HTTP/2's own (RFC 9113, 5.2): a message
is acknowledged when the application has taken it, so a slow reader slows the server at constant memory.
"""

import base64
import contextlib
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings

OK, CANCELLED, UNKNOWN, UNAVAILABLE, INTERNAL = 0, 1, 2, 14, 13
"""Status codes of gRPC that are made here; all others come from the server."""

_PREFIX = struct.Struct(">BI")  # compressed flag, message length
_MESSAGE_LIMIT = 64 << 20
_STREAM_WINDOW = 1 << 20
_CONNECTION_WINDOW = 1 << 30  # streams limit themselves, so that none waits for another to be read
_FRAME_SIZE = 1 << 18
_READ_SIZE = 1 << 18
_UNSENT_LIMIT = 1 << 18
_SETTINGS = {
    SettingCodes.ENABLE_PUSH: 0,
    SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
    SettingCodes.MAX_FRAME_SIZE: _FRAME_SIZE,
}

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ended: gRPC status code, its message, the serialized google.rpc.Status (may be empty), the op_id."""

    code: int
    message: str = ""
    details: bytes = b""
    op_id: str = ""


class _Draining(H2ConnectionStateMachine):
    """After GOAWAY the streams under way go on to their end (RFC 9113, 6.8); h2 would close the connection at once, and
    a stopping server's last words would be lost."""

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        if input_ is ConnectionInputs.RECV_GOAWAY:
            return []
        return super().process_input(input_)


class Stream:
    """Of one call: messages out, messages in, then a status. Nothing here blocks; Connection.wait does."""

    def __init__(self, connection: "Connection", stream_id: int) -> None:
        self.id = stream_id
        self.status: Status | None = None
        self._connection = connection
        self._outbox = bytearray()
        self._last_queued = False
        self._last_sent = False
        self._inbox = bytearray()
        self._messages: deque[bytes] = deque()
        self._unacknowledged = 0

    @property
    def can_send(self) -> bool:
        """Whether the last message is on its way; sending before that only makes the outbox grow."""
        return self.status is None and not self._outbox and not self._last_queued

    @property
    def readable(self) -> bool:
        """Whether `take` has a message, or the call is over: waiting any longer is useless."""
        return bool(self._messages) or self.status is not None

    def send(self, message: bytes, *, last: bool = False) -> None:
        """Queue one serialized message; `last` closes this direction."""
        self._outbox += _PREFIX.pack(0, len(message))
        self._outbox += message
        self._last_queued = self._last_queued or last
        self._connection.transmit(self)

    def take(self) -> bytes | None:
        """The next message that is here, or None."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._acknowledge()
        return message

    def cancel(self) -> None:
        """Leave: the server sees the call cancelled. What was not taken is dropped."""
        if self.status is None:
            self._connection.reset(self)
            self.end(Status(CANCELLED, "cancelled by the caller"))
        self._messages.clear()
        self._acknowledge()  # what nobody takes counts against all calls of the connection

    # The rest is for the connection.

    @property
    def has_outgoing(self) -> bool:
        """Whether something waits for room on the wire."""
        return self.status is None and not self._last_sent and (bool(self._outbox) or self._last_queued)

    def outgoing(self, limit: int) -> tuple[bytes, bool]:
        """Take up to `limit` bytes to put on the wire, and whether they are the last of this direction."""
        data = bytes(self._outbox[:limit])
        del self._outbox[:limit]
        self._last_sent = self._last_queued and not self._outbox
        return data, self._last_sent

    def feed(self, data: bytes, flow_controlled_length: int) -> None:
        """Bytes of the response arrived."""
        self._unacknowledged += flow_controlled_length
        self._inbox += data
        while len(self._inbox) >= _PREFIX.size:
            compressed, length = _PREFIX.unpack_from(self._inbox)
            if compressed or length > _MESSAGE_LIMIT:
                self._connection.reset(self)
                self.end(Status(INTERNAL, f"the server sent a message that can't be read ({length} bytes)"))
                return
            end = _PREFIX.size + length
            if len(self._inbox) < end:
                break
            self._messages.append(bytes(self._inbox[_PREFIX.size : end]))
            del self._inbox[:end]
        self._acknowledge()

    def end(self, status: Status) -> None:
        """The call is over; only the first status counts."""
        if self.status is None:
            self.status = status
            self._outbox.clear()

    def _acknowledge(self) -> None:
        # While a whole message waits to be taken the window stays shut. Half a message must be acknowledged at once:
        # it may be larger than the window.
        if self._unacknowledged and not self._messages:
            self._connection.acknowledge(self, self._unacknowledged)
            self._unacknowledged = 0


class Connection:
    """One HTTP/2 connection; any number of calls at a time. When it is lost every call under way ends as UNAVAILABLE.

    `silence_limit`: how many seconds `wait` lets the server say nothing before it is given up; None is for ever.
    `answered` is called as soon as it has said something about a call, or can't any more."""

    def __init__(
        self, sock: socket.socket, silence_limit: float | None = None, answered: Callable[[], None] = lambda: None
    ) -> None:
        self._socket = sock
        self._answered = answered
        self._silence_limit = silence_limit
        self._h2 = H2Connection(H2Configuration(header_encoding=None))
        self._h2.state_machine = _Draining()
        # In force from the start, and not from the server's acknowledgement on: a server may use what it was allowed
        # before it says that it has read it.
        self._h2.local_settings = Settings(client=True, initial_values=_SETTINGS)
        self._h2.max_inbound_frame_size = _FRAME_SIZE
        self._streams: dict[int, Stream] = {}
        self._unsent = bytearray()
        self._sent = 0
        self._lost_because = ""

    def start(self) -> None:
        """Begin the conversation; the socket is connected."""
        self._socket.setblocking(False)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW)

    def begin(self, path: str, headers: Headers = ()) -> Stream:
        """Begin a call of `path` ("/package.Service/Method")."""
        stream = Stream(self, self._h2.get_next_available_stream_id())
        if self._lost_because:
            stream.end(Status(UNAVAILABLE, self._lost_because))
            return stream
        self._h2.send_headers(
            stream.id,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                *headers,
            ],
        )
        self._streams[stream.id] = stream
        return stream

    @property
    def lost(self) -> bool:
        """Whether nothing more can come."""
        return bool(self._lost_because)

    def wait(self) -> None:
        """Block until the server said something or took something, or the connection is lost."""
        sent = self._sent
        events = self.flush()
        if self.lost or self._sent > sent:
            return  # the server may have nothing to say about what it took, and the caller more to send
        poller = select.poll()
        poller.register(self._socket, events)
        if poller.poll(None if self._silence_limit is None else self._silence_limit * 1000):
            self.receive()
        else:
            self._lose(f"the server did not answer within {self._silence_limit:g} s")

    def peer_pid(self) -> int:
        """Of the process that listened."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int.from_bytes(credentials[:4], sys.byteorder)

    def fileno(self) -> int:
        """For a poll() of one's own, while it is not lost: `flush` before it, `receive` after it."""
        return self._socket.fileno()

    def flush(self) -> int:
        """Send what can be sent without waiting; answers the poll() events to wait for."""
        self._unsent += self._h2.data_to_send()
        try:
            while self._unsent:
                size = self._socket.send(self._unsent)
                self._sent += size
                del self._unsent[:size]
                self._transmit_all()
        except BlockingIOError:
            return select.POLLIN | select.POLLOUT
        except (BrokenPipeError, ConnectionResetError):
            pass  # what the server said before it left is still to be read; receive() finds the end
        except OSError as error:
            self._lose(f"the connection to the server broke: {error}")
        return select.POLLIN

    def receive(self) -> None:
        """Take in what has arrived, without waiting."""
        try:
            data = self._socket.recv(_READ_SIZE)
            for event in self._h2.receive_data(data):
                self._dispatch(event)
            # Only now: h2 is at the end of what arrived already, where a stream whose window grew may have ended.
            self._transmit_all()
        except BlockingIOError:
            return
        except (OSError, ProtocolError) as error:
            self._lose(f"the connection to the server broke: {error}")
        else:
            if not data:
                self._lose("the server closed the connection")
            self.flush()

    def close(self) -> None:
        """Leave. The server sees every call under way cancelled."""
        self._socket.close()

    def transmit(self, stream: Stream) -> None:
        """Put as much of the call's outgoing bytes on the wire as flow control allows."""
        while stream.has_outgoing and len(self._unsent) < _UNSENT_LIMIT:
            # Below zero after the server has made its windows smaller (RFC 9113, 6.9.2).
            window = max(0, self._h2.local_flow_control_window(stream.id))
            data, last = stream.outgoing(min(window, self._h2.max_outbound_frame_size))
            if not data and not last:
                return
            self._h2.send_data(stream.id, data, end_stream=last)
            self._unsent += self._h2.data_to_send()

    def acknowledge(self, stream: Stream, length: int) -> None:
        """Let the server send that much more."""
        if not self.lost:
            self._h2.acknowledge_received_data(length, stream.id)

    def reset(self, stream: Stream) -> None:
        """Tell the server that nobody waits for this call any more."""
        self._streams.pop(stream.id, None)
        with contextlib.suppress(StreamClosedError):  # what arrived with the event that we look at has ended it
            self._h2.reset_stream(stream.id, ErrorCodes.CANCEL)

    def _lose(self, because: str) -> None:
        self._lost_because = because
        self._answered()
        for stream in self._streams.values():
            stream.end(Status(UNAVAILABLE, because))
        self._streams.clear()

    def _transmit_all(self) -> None:
        for stream in self._streams.values():
            self.transmit(stream)

    def _dispatch(self, event: Event) -> None:
        match event:
            case DataReceived(stream_id=stream_id) if stream_id in self._streams:
                self._streams[stream_id].feed(event.data, event.flow_controlled_length)
            case DataReceived(stream_id=stream_id):  # of a call that has just been given up
                self._h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
            case ResponseReceived(stream_id=stream_id) | TrailersReceived(stream_id=stream_id):
                self._answered()
                status = _status(dict(event.headers))
                if status is not None and stream_id in self._streams:
                    self._streams[stream_id].end(status)
            case StreamEnded(stream_id=stream_id) if stream_id in self._streams:
                self._streams.pop(stream_id).end(Status(UNKNOWN, "the call ended without a status"))
            case StreamReset(stream_id=stream_id) if stream_id in self._streams:
                code = getattr(event.error_code, "name", event.error_code)
                self._streams.pop(stream_id).end(Status(UNAVAILABLE, f"the server gave the call up ({code})"))


def _status(headers: dict[bytes, bytes]) -> Status | None:
    """The status in response headers or trailers; None while the response goes on."""
    if headers.get(b":status", b"200") != b"200":
        return Status(UNAVAILABLE, f"this is no gRPC server: HTTP status {headers[b':status'].decode()}")
    if b"grpc-status" not in headers:
        return None
    details = headers.get(b"grpc-status-details-bin", b"")
    return Status(
        int(headers[b"grpc-status"]),
        unquote(headers.get(b"grpc-message", b"").decode()),
        base64.b64decode(details + b"=" * (-len(details) % 4)),  # gRPC leaves the padding out
        headers.get(b"ingle-op-id", b"").decode(),
    )
