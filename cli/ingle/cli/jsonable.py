"""Protobuf messages as plain data, for --json.

A promise to scripts:

* names are those of the proto fields, snake_case, and every field is always there;
* numbers are numbers, also those of 64 bits; bytes are base64;
* an enum value is its name without the enum's own, lower case: VM_STATE_RUNNING is "running", unspecified is null;
* a timestamp is RFC 3339 in UTC, a duration seconds as a number;
* a message or an optional field that is not set is null.
"""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC
from typing import Any, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

LIST, ANY_KEY, VALUE = "list", "map", "value"
Shape = Mapping[str, "Shape"] | str
"""The fields of an object, or what a field is: one of the three above."""

_VALUES = {"google.protobuf.Timestamp", "google.protobuf.Duration"}


def shape_of(descriptor: Any) -> Shape:
    """What `to_json` makes of such messages. None of the contract's is part of itself."""
    return {field.name: _shape(field) for field in descriptor.fields}


def to_json(message: Message) -> dict[str, Json]:
    """All fields of the message."""
    return {field.name: _field(message, cast("FieldDescriptor", field)) for field in message.DESCRIPTOR.fields}


def enum_name(enum: EnumDescriptor, number: int) -> str:
    """The short name of an enum value, lower case; of one that this client doesn't know yet, its number."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    return value.name[_prefix_length(enum) :].lower()


def _shape(field: FieldDescriptor) -> Shape:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return ANY_KEY
    if field.is_repeated:
        return LIST
    return VALUE if kind is None or kind.full_name in _VALUES else shape_of(kind)


def _field(message: Message, field: FieldDescriptor) -> Json:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {str(key): value[key] for key in sorted(value)}
    if field.is_repeated:
        return [_scalar(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _scalar(field, value)


def _scalar(field: FieldDescriptor, value: object) -> Json:
    match value:
        case Timestamp():
            return value.ToDatetime(UTC).isoformat().replace("+00:00", "Z")
        case Duration():
            return value.ToTimedelta().total_seconds()
        case Message():
            return to_json(value)
        case bytes():
            return b64encode(value).decode()
        case int() if field.enum_type is not None:
            return enum_name(field.enum_type, value) if value else None
        case int() | float() | str():
            return value
    raise TypeError(f"{field.full_name} has no place in JSON")


def _prefix_length(enum: EnumDescriptor) -> int:
    # buf's STANDARD rules: every value begins with the enum's name, and the one of 0 is that plus UNSPECIFIED.
    return len(enum.values_by_number[0].name) - len("UNSPECIFIED")
