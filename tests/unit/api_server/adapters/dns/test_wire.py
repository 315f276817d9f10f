"""What a guest may send as a question, and what comes of it."""

import pytest
from dnslib import RCODE, DNSHeader, DNSLabel, DNSQuestion, DNSRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingle.api_server.adapters.dns import wire
from ingle.api_server.adapters.dns.answers import Answers, Directory, Forward, Host
from unit.fuzzing import mutations

WEB, BIG, HOST = "10.213.0.2", "10.213.0.9", "127.0.0.1"
DIRECTORY = Directory()
DIRECTORY.tell("1", Host("web", "default", WEB, nat=False))
DIRECTORY.tell("2", Host("big", "default", BIG, nat=True, address6="fd69:6e67::9"))
ANSWERS = Answers("vm", DIRECTORY)
ASKERS = (WEB, BIG, HOST, "192.0.2.1")


def header(*counts: int, flags: int = 0x100) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in (7, flags, *counts))


def answered(message: bytes, asker: str) -> bytes | None:
    """The same steps as the responder's. Whatever comes is answered, or is noise, or another server's."""
    try:
        question = wire.parse(message)
        reply = ANSWERS.to(question, asker)
    except (wire.Noise, Forward):
        return None
    return wire.for_datagram(reply, question)


def check(message: bytes, asker: str) -> None:
    reply = answered(message, asker)
    if reply is not None:
        assert len(reply) <= wire.PLAIN_UDP_BYTES
        assert reply[:2] == message[:2]
        assert reply[2] & 0x80
        if message.isascii():  # others' readers know no other names
            DNSRecord.parse(reply)


LABEL = st.binary(min_size=1, max_size=63)
KNOWN = st.sampled_from([b"web", b"big", b"vm", b"arpa", b"in-addr", b"ip6", b"10", b"213", b"f", b"WEB"])
NAME = st.lists(KNOWN | LABEL, max_size=40)
NUMBER = st.integers(0, 0xFFFF)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Questions that are nearly right, with any byte of them changed, and anything behind them."""
    counts = [draw(st.sampled_from([0, 1, 2, 0xFFFF])) for _ in range(4)] if draw(st.booleans()) else [1, 0, 0, 0]
    flags = draw(NUMBER) if draw(st.booleans()) else 0x100
    name = wire.name(draw(NAME)) if draw(st.booleans()) else draw(st.binary(max_size=300))
    tail = draw(NUMBER).to_bytes(2, "big") + draw(st.binary(max_size=40))
    message = bytearray(header(*counts, flags=flags) + name + tail)
    for place in draw(st.lists(st.integers(0, len(message) - 1), max_size=4)):
        message[place] = draw(st.integers(0, 255))
    return bytes(message[: draw(st.integers(0, len(message)))]) if draw(st.booleans()) else bytes(message)


@settings(deadline=None, max_examples=500, suppress_health_check=list(HealthCheck))
@given(messages() | st.binary(max_size=1400), st.sampled_from(ASKERS))
def test_whatever_comes_is_answered_or_not_and_raises_nothing(message: bytes, asker: str) -> None:
    check(message, asker)


def test_fuzz_questions() -> None:
    names = ("web.vm", "big.vm", "vm", "9.0.213.10.in-addr.arpa", "a." * 120 + "vm", "debian.org")
    seeds = [DNSRecord.question(name, kind).pack() for name in names for kind in ("A", "AAAA", "PTR", "ANY")]
    for message in mutations(seeds):
        for asker in ASKERS:
            check(message, asker)


def test_names_are_read_as_others_write_them() -> None:
    for labels in ((), (b"web", b"vm"), (b"x" * 63,) * 3, (b"\0", b"\xff.", b"a b")):
        question = DNSRecord(DNSHeader(id=7, rd=1), q=DNSQuestion(DNSLabel(labels), 28)).pack()
        found = wire.parse(question)
        assert (found.labels, found.kind, found.error) == (labels, 28, 0)
        assert found.section == question[12:]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (b"\xc0\x0c", "a pointer to itself"),
        (b"\xc0\x0c" * 8000, "a chain of pointers"),
        (b"\x01a" * 128 + b"\0", "more than 255 bytes"),
        (b"\x40" + b"a" * 64 + b"\0", "a label of 64 bytes"),
        (b"\x03web", "no end"),
        (b"\x3f", "a label that isn't there"),
        (b"\x01a" * 30000, "as long as TCP carries"),
    ],
)
def test_what_is_no_name_is_refused_at_its_first_byte_too_many(name: bytes, why: str) -> None:
    message = header(1, 0, 0, 0) + name + b"\0\1\0\1"
    if len(message) > wire.LONGEST_QUESTION:
        with pytest.raises(wire.Noise):
            wire.parse(message)
    else:
        assert wire.parse(message).error == RCODE.FORMERR, why


@pytest.mark.parametrize(
    "counts", [(0, 0, 0, 0), (2, 0, 0, 0), (0xFFFF, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 3)]
)
def test_a_message_has_one_question_and_little_else(counts: tuple[int, ...]) -> None:
    reply = answered(header(*counts) + b"\3web\2vm\0\0\1\0\1", WEB)
    assert reply is not None
    assert DNSRecord.parse(reply).header.rcode == RCODE.FORMERR


def test_what_is_no_query_is_not_implemented_and_a_response_is_noise() -> None:
    body = b"\3web\2vm\0\0\1\0\1"
    reply = answered(header(1, 0, 0, 0, flags=5 << 11) + body, WEB)
    assert reply is not None
    assert DNSRecord.parse(reply).header.rcode == RCODE.NOTIMP
    with pytest.raises(wire.Noise):
        wire.parse(header(1, 0, 0, 0, flags=0x8100) + body)


def test_an_answer_too_long_for_a_datagram_says_so() -> None:
    domain = ".".join(["d" * 60] * 4)
    question = wire.parse(DNSRecord.question(domain).pack())
    reply = Answers(domain, DIRECTORY).to(question, WEB)
    assert len(reply) > wire.PLAIN_UDP_BYTES
    short = DNSRecord.parse(wire.for_datagram(reply, question))
    assert (short.header.tc, short.auth, str(short.q.qname)) == (1, [], domain + ".")
