"""The command line's HTTP/2: what one stream of a connection does is no other's business, however its bytes arrive."""

import contextlib
import socket
import struct
from dataclasses import dataclass
from itertools import pairwise

import hpack
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from ingle.cli import transport
from ingle.cli.transport import INTERNAL, OK, UNAVAILABLE, Connection, Stream

steady = settings(deadline=None, derandomize=True, max_examples=75)

_PATH = "/test/Method"
_CANCEL, _NO_ERROR = 8, 0
_LARGE = bytes(1 << 20)  # more than a server takes at first: there is always something waiting to be sent


@dataclass(frozen=True)
class Answer:
    """What a server says on one stream, and how it ends it."""

    messages: tuple[bytes, ...]
    code: int | None  # None: by a reset
    windows: tuple[int, ...]
    reset_behind: bool

    def frames(self, stream: int, encoder: hpack.Encoder) -> list["Frame | list[tuple[str, str]]"]:
        """In order; headers are still to be encoded, which must happen in the order in which they are sent."""
        windows: list[Frame | list[tuple[str, str]]] = [
            WindowUpdateFrame(stream, window_increment=size) for size in self.windows
        ]
        said: list[Frame | list[tuple[str, str]]] = [[(":status", "200"), ("content-type", "application/grpc")]]
        for message in self.messages:
            said.append(DataFrame(stream, struct.pack(">BI", 0, len(message)) + message))
            said += windows[:1]
        if self.code is None:
            return [*said, *windows, RstStreamFrame(stream, error_code=_CANCEL), *windows]
        said += [[("grpc-status", str(self.code)), ("grpc-message", "why")], *windows]
        if self.reset_behind:  # as grpc does when it wants no more of what the caller sends
            said += [RstStreamFrame(stream, error_code=_NO_ERROR), *windows]
        return said


answers = st.builds(
    Answer,
    st.lists(st.binary(max_size=30), max_size=3).map(tuple),
    st.none() | st.integers(0, 16),
    st.lists(st.integers(1, 100_000), max_size=2).map(tuple),
    st.booleans(),
)


def wire(order: list[int], said: dict[int, Answer]) -> bytes:
    """All of it as bytes: the streams' frames, each stream's in its own order, mixed as `order` has it."""
    encoder = hpack.Encoder()
    waiting = {stream: answer.frames(stream, encoder) for stream, answer in said.items()}
    headers_seen: set[int] = set()
    stream_bytes = SettingsFrame(0).serialize() + WindowUpdateFrame(0, window_increment=1 << 24).serialize()
    rest = [stream for stream, frames in waiting.items() for _ in frames]
    turns = iter([*order, *rest])
    while any(waiting.values()):
        stream = next(turns)
        if not waiting.get(stream):
            continue
        frame = waiting[stream].pop(0)
        if isinstance(frame, list):
            flags = ["END_HEADERS", *(["END_STREAM"] if stream in headers_seen else [])]
            headers_seen.add(stream)
            frame = HeadersFrame(stream, encoder.encode(frame), flags=flags)
        stream_bytes += frame.serialize()
    return stream_bytes + PingFrame(0, opaque_data=b"thatsall").serialize()


def converse(pieces: list[bytes], streams: int) -> list[tuple[list[bytes], int | None]]:
    """What each of several calls, all with much to send, got from a server that says these bytes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        connection = Connection(ours)
        connection.start()
        calls = [connection.begin(_PATH) for _ in range(streams)]
        taken: list[list[bytes]] = [[] for _ in calls]
        for call in calls:
            call.send(_LARGE)
        for piece in pieces:
            connection.flush()
            theirs.sendall(piece)
            _drop_all(theirs)
            connection.receive()
            _take_all(calls, taken)
        assert not connection.lost
        return [
            (messages, call.status.code if call.status else None) for messages, call in zip(taken, calls, strict=True)
        ]


def _drop_all(sock: socket.socket) -> None:
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        pass


def _take_all(calls: list[Stream], taken: list[list[bytes]]) -> None:
    for call, messages in zip(calls, taken, strict=True):
        while (message := call.take()) is not None:
            messages.append(message)


@steady
@given(st.data(), st.lists(answers, min_size=1, max_size=4))
def test_each_stream_ends_as_its_own_server_ended_it(data: st.DataObject, said: list[Answer]) -> None:
    by_stream = {2 * index + 1: answer for index, answer in enumerate(said)}
    order = data.draw(st.lists(st.sampled_from(sorted(by_stream)), max_size=40))
    whole = wire(order, by_stream)
    places = data.draw(st.lists(st.integers(0, len(whole)), max_size=8))
    pieces = [whole[begin:end] for begin, end in pairwise(sorted({0, *places, len(whole)}))]
    expected = [(list(answer.messages), UNAVAILABLE if answer.code is None else answer.code) for answer in said]
    assert converse(pieces, len(said)) == expected


def test_a_call_that_was_refused_and_given_more_room_at_once_keeps_its_reason() -> None:
    """Trailers, a reset and a larger window in one read, as a server has it that wants no more of an upload."""
    refused = Answer((), 8, (50_000,), reset_behind=True)
    healthy = Answer((b"hello",), OK, (50_000,), reset_behind=False)
    whole = wire([1, 1, 1, 1, 1, 3], {1: refused, 3: healthy})
    assert converse([whole], 2) == [([], 8), ([b"hello"], OK)]


def test_a_message_that_cannot_be_read_ends_its_call_alone_though_a_reset_came_with_it() -> None:
    encoder = hpack.Encoder()
    compressed = DataFrame(1, struct.pack(">BI", 1, 3) + b"abc").serialize()
    headers = HeadersFrame(1, encoder.encode([(":status", "200")]), flags=["END_HEADERS"]).serialize()
    whole = SettingsFrame(0).serialize() + headers + compressed + RstStreamFrame(1, error_code=_CANCEL).serialize()
    assert converse([whole], 2) == [([], INTERNAL), ([], None)]


@pytest.mark.parametrize("ended", [False, True], ids=["under way", "ended"])
def test_calls_that_are_left_unread_take_no_room_from_others(monkeypatch: pytest.MonkeyPatch, ended: bool) -> None:
    monkeypatch.setattr(transport, "_CONNECTION_WINDOW", 100_000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        connection, server = Connection(ours), H2Connection(H2Configuration(client_side=False))
        connection.start()
        server.initiate_connection()
        for number in range(30):
            call = connection.begin(_PATH)
            _exchange(connection, server, theirs)
            server.send_headers(call.id, [(":status", "200")])
            for _ in range(4):
                server.send_data(call.id, struct.pack(">BI", 0, 9_995) + bytes(9_995))
            if ended:
                server.send_headers(call.id, [("grpc-status", "0")], end_stream=True)
            _exchange(connection, server, theirs)
            assert call.take(), number
            call.cancel()
            _exchange(connection, server, theirs)


def _exchange(connection: Connection, server: H2Connection, sock: socket.socket) -> None:
    """What either has to say gets to the other."""
    for _ in range(3):
        connection.flush()
        with contextlib.suppress(BlockingIOError):
            server.receive_data(sock.recv(1 << 20))
        sock.sendall(server.data_to_send())
        connection.receive()
