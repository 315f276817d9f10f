"""The decoder is the boundary to a hostile guest: the same frames wherever the stream is cut, and no garbage."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingle.api_server.adapters.guest.frames import (
    MAX_PAYLOAD,
    PAYLOADS,
    Decoder,
    Frame,
    FrameError,
    FrameType,
    encode,
)

steady = settings(deadline=None, derandomize=True)


@st.composite
def allowed(draw: st.DrawFn) -> Frame:
    """Any frame of an agent's; the sizes that matter are those at either end of what is allowed."""
    kind = draw(st.sampled_from(list(PAYLOADS)))
    least, most = PAYLOADS[kind][0], min(PAYLOADS[kind][-1], 200_000)
    content = st.binary(min_size=min(least, most), max_size=min(most, 40))
    return Frame(kind, draw(content | st.integers(least, most).map(bytes)))


frames = allowed()


def decode(*pieces: bytes) -> tuple[list[Frame], str]:
    """The frames of a stream that comes in pieces, and why it was refused."""
    decoder, found = Decoder(), []
    for piece in pieces:
        rest = piece
        while rest:
            space = decoder.space()
            part, rest = rest[: len(space)], rest[len(space) :]
            space[: len(part)] = part
            try:
                for frame in decoder.received(len(part)):
                    found.append(frame)  # noqa: PERF402 - those before the bad one count
            except FrameError as error:
                return found, str(error)
    return found, ""


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    places = draw(st.lists(st.integers(0, len(stream)), max_size=20))
    return [stream[begin:end] for begin, end in pairwise(sorted([0, *places, len(stream)]))]


@steady
@given(st.data(), st.lists(frames, max_size=6))
def test_any_split_of_any_stream_decodes_the_same(data: st.DataObject, sent: list[Frame]) -> None:
    stream = b"".join(encode(frame.type, frame.payload) for frame in sent)
    assert decode(*data.draw(cut(stream))) == (sent, "")


@steady
@given(st.data(), st.lists(frames, max_size=3), st.binary(max_size=100))
def test_any_split_of_any_garbage_is_taken_and_refused_the_same(
    data: st.DataObject, sent: list[Frame], garbage: bytes
) -> None:
    stream = b"".join(encode(frame.type, frame.payload) for frame in sent) + garbage
    assert decode(*data.draw(cut(stream))) == decode(stream)


@pytest.mark.parametrize("kind", range(256))
def test_a_frame_is_taken_from_an_agent_or_refused_by_its_header_alone(kind: int) -> None:
    for size in (0, 1, 4096, 4097, 65536, 65537, MAX_PAYLOAD):
        is_allowed = kind in PAYLOADS and size in PAYLOADS[FrameType(kind)]
        found, refusal = decode(struct.pack(">IB", 1 + size, kind))
        assert found == ([Frame(FrameType(kind), b"")] if is_allowed and not size else [])
        assert bool(refusal) != is_allowed


@steady
@given(st.lists(frames, max_size=3), st.binary(min_size=5, max_size=100))
def test_garbage_is_refused_within_one_frame(sent: list[Frame], garbage: bytes) -> None:
    length, kind = struct.unpack(">IB", garbage[:5])
    good = b"".join(encode(frame.type, frame.payload) for frame in sent)
    found, refusal = decode(good + garbage)
    assert found[: len(sent)] == sent
    if kind not in PAYLOADS or length - 1 not in PAYLOADS[FrameType(kind)]:
        assert refusal
        assert len(found) == len(sent)


@steady
@given(st.binary(max_size=300))
def test_whatever_comes_is_frames_or_a_refusal(stream: bytes) -> None:
    found, refusal = decode(stream)
    taken = b"".join(encode(frame.type, frame.payload) for frame in found)
    assert stream.startswith(taken)
    if refusal:
        assert len(stream) > len(taken)


def test_exactly_a_megabyte_is_a_frame() -> None:
    payload = bytes(range(256)) * 4096
    assert decode(encode(FrameType.STDOUT, payload)) == ([Frame(FrameType.STDOUT, payload)], "")


def test_more_than_a_megabyte_is_refused_by_its_length_alone() -> None:
    found, refusal = decode(struct.pack(">I", MAX_PAYLOAD + 2))
    assert not found
    assert str(MAX_PAYLOAD + 2) in refusal


def test_more_than_a_megabyte_is_not_written() -> None:
    with pytest.raises(FrameError, match=str(MAX_PAYLOAD + 1)):
        encode(FrameType.STDIN, bytes(MAX_PAYLOAD + 1))


def test_zero_length_is_refused() -> None:
    assert decode(bytes(4)) == ([], "a frame of length 0; 1 to 1048577 is allowed")


@pytest.mark.parametrize(
    "kind", [0, *(FrameType[n] for n in ("HELLO", "REQUEST", "SIGNAL", "STDIN", "STDIN_EOF")), 255]
)
def test_what_only_callers_say_is_refused(kind: int) -> None:
    assert decode(struct.pack(">IB", 1, kind)) == ([], f"a frame of type {kind}, which no agent sends")


def test_good_frames_before_a_bad_one_are_given() -> None:
    assert decode(encode(FrameType.STDOUT, b"last words") + bytes(4))[0] == [Frame(FrameType.STDOUT, b"last words")]


def test_an_end_within_a_frame_is_seen() -> None:
    decoder = Decoder()
    assert not decoder.partial
    decoder.space()[:3] = b"\0\0\0"
    list(decoder.received(3))
    assert decoder.partial


def test_memory_is_one_frame_at_most() -> None:
    decoder = Decoder()
    header = struct.pack(">IB", MAX_PAYLOAD + 1, FrameType.STDOUT)
    decoder.space()[:5] = header
    list(decoder.received(5))
    assert len(decoder.space()) == MAX_PAYLOAD
