"""DNS messages, RFC 1035 section 4: reading what a guest asks, and writing what is answered.

A guest is hostile, so what is read is a header and one question, in one pass over at most 255 bytes of name: there is
nothing to follow, to allocate or to recurse into. What comes behind the question is not looked at.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

LONGEST_QUESTION = 1232
"""Bytes of a whole message, what resolvers agreed on for UDP: one name, its padding and cookies take a third."""

PLAIN_UDP_BYTES = 512

A, SOA, PTR, AAAA, ANY = 1, 6, 12, 28, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

_HEADER = struct.Struct("!6H")
_TAIL = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_IN = 1
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_AVAILABLE = 1 << 15, 1 << 10, 1 << 9, 1 << 7
_OPCODE, _ECHOED = 0xF << 11, 0xF << 11 | 1 << 8 | 1 << 4  # the opcode, "recursion desired", "checking disabled"
_MOST_ADDITIONAL = 2  # EDNS, and a signature
_LONGEST_LABEL, _LONGEST_NAME = 63, 255
_NAME_OF_QUESTION = struct.pack("!H", 0xC000 | _HEADER.size)


class Noise(Exception):
    """It is no question, so nothing is owed to it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to know. `error` is the code to answer with when it can't be taken for a question."""

    id: int
    flags: int
    labels: tuple[bytes, ...] = ()
    """Of the name, in lower case, without the root's."""
    kind: int = 0
    section: bytes = b""
    """The question as it was asked, to be repeated in the answer."""
    error: int = NOERROR


@dataclass(frozen=True, slots=True)
class Record:
    """A line of an answer. It is about the name asked for when `name` is None."""

    kind: int
    data: bytes
    ttl: int
    name: bytes | None = None


def parse(message: bytes) -> Question:
    """The question in a message. Raises Noise."""
    if not _HEADER.size <= len(message) <= LONGEST_QUESTION:
        raise Noise
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
    if flags & _RESPONSE:
        raise Noise
    if flags & _OPCODE:
        return Question(number, flags, error=NOTIMP)
    found = _name(message) if questions == 1 else None
    if found is None or answers or authorities or additional > _MOST_ADDITIONAL:
        return Question(number, flags, error=FORMERR)
    labels, end = found
    kind, _ = _TAIL.unpack_from(message, end)
    return Question(number, flags, labels, kind, message[_HEADER.size : end + _TAIL.size])


def reply(
    question: Question,
    answers: Sequence[Record] = (),
    authorities: Sequence[Record] = (),
    *,
    code: int = NOERROR,
    ours: bool = True,
) -> bytes:
    """The whole message. `ours` says that nobody knows it better."""
    flags = _RESPONSE | question.flags & _ECHOED | _RECURSION_AVAILABLE | (ours and _AUTHORITATIVE) | code
    counts = (1 if question.section else 0, len(answers), len(authorities), 0)
    records = b"".join(map(_packed, (*answers, *authorities)))
    return _HEADER.pack(question.id, flags, *counts) + question.section + records


def for_datagram(message: bytes, question: Question) -> bytes:
    """The message, or where it is too long for a datagram, word that it is to be asked for by TCP."""
    if len(message) <= PLAIN_UDP_BYTES:
        return message
    number, flags, *_ = _HEADER.unpack_from(message)
    return _HEADER.pack(number, flags | _TRUNCATED, 1, 0, 0, 0) + question.section


def name(labels: Sequence[bytes]) -> bytes:
    """As it stands in a message. The labels are ours, or of a name that was asked for, and have a label's length."""
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def address(text: str) -> bytes:
    """The data of an A or AAAA record."""
    return IPv6Address(text).packed if ":" in text else IPv4Address(text).packed


def start_of_authority(domain: Sequence[bytes], ttl: int) -> Record:
    """Without it a negative answer may not be kept, RFC 2308: resolvers would ask again and again."""
    serial, refresh, retry, expire = 1, 60, 60, 60
    times = struct.pack("!5I", serial, refresh, retry, expire, ttl)
    return Record(SOA, name(domain) + name((b"root", *domain)) + times, ttl, name(domain))


def _name(message: bytes) -> tuple[tuple[bytes, ...], int] | None:
    """The labels of the question's name and where it ends, with the four bytes that follow there; None for what is no
    name. Pointers are none: there is nothing before a first question that they could point to."""
    labels: list[bytes] = []
    place = _HEADER.size
    last = min(len(message) - _TAIL.size, _HEADER.size + _LONGEST_NAME) - 1
    while place <= last:
        length = message[place]
        place += 1
        if length == 0:
            return tuple(labels), place
        if length > _LONGEST_LABEL:
            return None
        labels.append(message[place : place + length].lower())
        place += length
    return None


def _packed(record: Record) -> bytes:
    about = _NAME_OF_QUESTION if record.name is None else record.name
    return about + _RECORD.pack(record.kind, _IN, record.ttl, len(record.data)) + record.data
