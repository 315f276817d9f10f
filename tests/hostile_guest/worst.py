"""Messages as bad as their descriptors allow: what a guest may put into each field, also fields that are yet to come.

Written as bytes, since the library would refuse to make most of it."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_NUMBER = 2**64 - 1


@dataclass(frozen=True)
class Profile:
    """What goes into fields: numbers, text, and how often what is repeated comes, as far as `size` bytes have room."""

    number: int = 1
    real: float = 1.0
    text: bytes = b"x"
    times: int = 1
    size: int = 1024 * 1024


PROFILES = {
    "large-numbers": Profile(number=_LARGEST_NUMBER, real=1e308),
    "negative-numbers": Profile(number=2**63, real=-1.0),
    "no-numbers": Profile(number=0, real=math.nan),
    "infinity": Profile(real=math.inf),
    "no-text": Profile(text=b""),
    "megabyte": Profile(text=b"A" * 1_000_000),
    "escapes": Profile(text=b"\x1b[2J\x1b]0;owned\x07\xc2\x9b31m\xe2\x80\xae\x00/../" * 3),
    "not-utf-8": Profile(text=b"\xff\xfe\x80"),
    "many": Profile(times=1_000_000),
    "many-empty": Profile(text=b"", number=0, times=1_000_000),
    "many-large": Profile(text=b"\xc2\x9b" * 200, times=1_000_000),
}


def worst(message: Any, profile: Profile, depth: int = 8) -> bytes:
    """Such a message, every field filled."""
    content = b""
    for field in message.fields:
        one = _field(field, profile, depth)
        room = max(0, profile.size - len(content)) // max(1, len(one))
        content += one * (min(profile.times, room) if field.is_repeated else 1)
    return content


def all_worst(message: type[Message]) -> Iterator[tuple[str, bytes]]:
    """One for each profile, by its name, of no more bytes than a frame has."""
    for name, profile in PROFILES.items():
        yield name, worst(message.DESCRIPTOR, profile)[: profile.size]
    yield "garbage", b"\xff" * 1000


def _field(field: FieldDescriptor, profile: Profile, depth: int) -> bytes:
    match field.type:
        case FieldDescriptor.TYPE_DOUBLE:
            return _tag(field, _FIXED64) + struct.pack("<d", profile.real)
        case FieldDescriptor.TYPE_FLOAT:
            return _tag(field, _FIXED32) + struct.pack("<f", profile.real)
        case FieldDescriptor.TYPE_STRING | FieldDescriptor.TYPE_BYTES:
            return _delimited(field, profile.text)
        case FieldDescriptor.TYPE_MESSAGE:
            if depth == 0:
                return b""
            inner = Profile(profile.number, profile.real, profile.text, profile.times, profile.size // 100)
            return _delimited(field, worst(field.message_type, inner, depth - 1))
        case FieldDescriptor.TYPE_ENUM:
            return _tag(field, _VARINT) + varint(min(profile.number, 2**31 - 1))
        case _:
            return _tag(field, _VARINT) + varint(profile.number)


def _delimited(field: FieldDescriptor, content: bytes) -> bytes:
    return _tag(field, _BYTES) + varint(len(content)) + content


def _tag(field: FieldDescriptor, wire: int) -> bytes:
    return varint(field.number << 3 | wire)


def varint(value: int) -> bytes:
    """As protobuf writes a number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
