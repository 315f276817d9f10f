"""What the host takes from a serial port: the same packets wherever it is cut, a beginning behind anything."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ingle.api_server.adapters.guest.mux.wire import (
    FILLER,
    HEADER_SIZE,
    MARK_SIZE,
    MAX_PAYLOAD,
    Decoder,
    Lost,
    Packet,
    PacketType,
    Record,
    RecordKind,
    encode,
    record,
)
from unit.fuzzing import mutations

HOST, GUEST, OTHER = b"h" * MARK_SIZE, b"g" * MARK_SIZE, b"o" * MARK_SIZE
WELCOME = record(RecordKind.WELCOME, HOST, GUEST)
KNOCK = record(RecordKind.KNOCK, bytes(MARK_SIZE))

steady = settings(deadline=None, derandomize=True, max_examples=60)
streams = st.integers(0, 2**32 - 1)
packets = st.one_of(
    st.builds(Packet, st.just(PacketType.DATA), streams, st.binary(min_size=1, max_size=3000)),
    st.builds(Packet, st.sampled_from((PacketType.END, PacketType.RESET)), streams, st.just(b"")),
    st.builds(Packet, st.just(PacketType.CREDIT), streams, st.binary(min_size=4, max_size=4)),
)


def taken(pieces: list[bytes]) -> list[Packet | Record | Lost]:
    """As the mux does it: a WELCOME with our mark begins a session."""
    decoder, found = Decoder(), list[Packet | Record | Lost]()
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            space = decoder.space()
            part, rest = rest[: len(space)], rest[len(space) :]
            space[: len(part)] = part
            for item in decoder.received(len(part)):
                found.append(item)
                if isinstance(item, Record) and item.kind is RecordKind.WELCOME and item.host_mark == HOST:
                    decoder.begin(HOST)
    return found


def sent(items: list[Packet], mark: bytes = HOST) -> bytes:
    return b"".join(encode(*item, mark) for item in items)


def cut(data: st.DataObject, stream: bytes) -> list[bytes]:
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    return [stream[begin:end] for begin, end in pairwise(sorted([0, *places, len(stream)]))]


@steady
@given(st.data(), st.lists(packets, max_size=6), st.binary(max_size=100))
def test_packets_come_in_order_behind_anything_and_however_they_are_cut(
    data: st.DataObject, items: list[Packet], before: bytes
) -> None:
    found = taken(cut(data, before + WELCOME + sent(items)))
    assert found == [Record(RecordKind.WELCOME, HOST, GUEST), *items]


@steady
@given(st.data(), st.lists(packets, min_size=1, max_size=4), st.lists(packets, max_size=4))
def test_what_was_cut_is_not_delivered_and_what_begins_behind_it_is_found(
    data: st.DataObject, earlier: list[Packet], later: list[Packet]
) -> None:
    stream = sent(earlier)
    end = data.draw(st.integers(0, len(stream) - 1))
    found = taken([WELCOME, stream[:end], KNOCK, WELCOME, sent(later)])
    whole = [item for item in found if isinstance(item, Packet)]
    delivered = len(whole) - len(later)
    assert whole == earlier[:delivered] + later
    assert delivered < len(earlier)
    assert [item.kind for item in found if isinstance(item, Record)][-2:] == [RecordKind.KNOCK, RecordKind.WELCOME]


def test_the_longest_packet_is_completed_by_what_goes_before_a_record() -> None:
    longest = encode(PacketType.DATA, 1, bytes(MAX_PAYLOAD), HOST)
    assert len(longest) == len(FILLER)
    for end in 1, HEADER_SIZE, HEADER_SIZE + 1, len(longest) - 1:
        found = taken([WELCOME, longest[:end], KNOCK])
        assert isinstance(found[1], Lost)
        assert found[2:] == [Record(RecordKind.KNOCK, bytes(MARK_SIZE), bytes(MARK_SIZE))]


def test_packets_of_another_session_and_records_in_what_is_carried_count_for_nothing() -> None:
    carried = Packet(PacketType.DATA, 1, record(RecordKind.WELCOME, OTHER)[len(FILLER) :] + sent([], OTHER))
    assert taken([WELCOME, sent([carried])])[1:] == [carried]
    other = Packet(PacketType.DATA, 1, b"of another")
    assert [type(item) for item in taken([WELCOME, sent([other], OTHER)])] == [Record, Lost]


def test_no_byte_that_cannot_be_right_is_waited_behind() -> None:
    for kind, size in (0, 0), (1, 5), (6, 0), (2, 0), (2, MAX_PAYLOAD + 1), (3, 1), (5, 5):
        header = (kind << 56 | size << 32 | 1).to_bytes(HEADER_SIZE, "big")
        assert isinstance(taken([WELCOME, header])[-1], Lost)


def test_fuzz_garbage_is_sought_through() -> None:
    seeds = [WELCOME + sent([Packet(PacketType.DATA, 1, bytes(3000))]), KNOCK + WELCOME, record(RecordKind.HELLO, HOST)]
    for stream in mutations(seeds):
        for item in taken([stream]):
            assert not isinstance(item, Packet) or len(item.payload) <= MAX_PAYLOAD
