"""How much a request may say: each text, list and map of each request has a bound, which its descriptor leads to, and
which is checked before any servicer sees the request. What costs time with its size is done by one loop for all.

What has no bound of its own has that of its kind. What else a value must keep to be one, is the model's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ingle.api_server.model.errors import InvalidArgument

_KIB, _MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bound:
    """Of a field."""

    bytes: int
    """In UTF-8: of a text; of each text in a list; of each key and each value in a map."""

    count: int = 64
    """Elements of a list or map."""

    total: int | None = None
    """Bytes of all elements together; None: as many as there may be elements of `bytes` each."""


TEXT = Bound(_KIB)
DATA = Bound(_MIB)
_PATH = Bound(4096)  # PATH_MAX
_ENV = Bound(128 * _KIB, count=8192, total=_MIB)  # MAX_ARG_STRLEN, as for a command's arguments
_ARGV = Bound(128 * _KIB, count=65536, total=_MIB)
_LABEL_FILTERS = Bound(2 * _KIB)  # a key, an equals sign, and a value of characters that have four bytes each

_OF_NAMES: Mapping[str, Bound] = {
    "path": _PATH,
    "new_path": _PATH,
    "raw_path": _PATH,
    "raw_new_path": _PATH,
    "unix_path": _PATH,
    "working_directory": _PATH,
    "page_token": _PATH,  # of ListDirectory it has a file's name, with escapes
    "argv": _ARGV,
    "env": _ENV,
}
"""Of fields that mean the same wherever they are."""

_OF_FIELDS: Mapping[str, Bound] = {
    "ingle.v1.CopyInStart.name": TEXT,  # of a file, not data
    "ingle.v1.RegisterImageStart.source": Bound(4 * _KIB),  # a thousand characters
    "ingle.v1.ImportKernelStart.source": Bound(4 * _KIB),
    "ingle.v1.ListVmsRequest.labels": _LABEL_FILTERS,
    "ingle.v1.ListSnapshotsRequest.labels": _LABEL_FILTERS,
    "ingle.v1.WatchEventsRequest.labels": _LABEL_FILTERS,
    "ingle.v1.Healthcheck.test": Bound(16 * _KIB, count=1024, total=16 * _KIB),
    "ingle.v1.VmSpec.ssh_keys": Bound(16 * _KIB, count=1000),
    "ingle.v1.GetSettingsRequest.environment": Bound(64 * _KIB, count=1000, total=64 * _KIB),
}
"""Of single fields, by their full names."""


def bound_of(field: FieldDescriptor) -> Bound:
    """What `field` keeps."""
    own = _OF_FIELDS.get(field.full_name) or _OF_NAMES.get(field.name)
    return own or (DATA if field.type == FieldDescriptor.TYPE_BYTES else TEXT)


def check(message: Message, size: int) -> None:
    """Raise InvalidArgument, with the field's path, when `message`, which came as `size` bytes, says more than it
    may."""
    checks = _checks_of(message.DESCRIPTOR)
    if size > checks.harmless:
        checks.check(message, size, "")


@dataclass(frozen=True, slots=True)
class _FieldCheck:
    """Of one field of a message."""

    name: str
    harmless: int
    """In a message of no more bytes the field keeps its bound, whatever they say."""

    has_presence: bool
    check: Callable[[Any, int, str], None]
    """Of the field's value, the bytes of the message that it is in, and its path."""


@dataclass(frozen=True, slots=True)
class _Checks:
    """Of a kind of message."""

    fields: tuple[_FieldCheck, ...]
    harmless: int

    def check(self, message: Message, size: int, path: str) -> None:
        for field in self.fields:
            if size > field.harmless and (not field.has_presence or message.HasField(field.name)):
                field.check(getattr(message, field.name), size, f"{path}{field.name}")


_NEVER = 1 << 62


@cache
def _checks_of(kind: Descriptor) -> _Checks:
    fields = tuple(made for field in kind.fields if (made := _check_of(field)) is not None)
    return _Checks(fields, min((field.harmless for field in fields), default=_NEVER))


def _check_of(field: FieldDescriptor) -> _FieldCheck | None:
    """None for what can't say much, such as a number."""
    bound, of_one, harmless = bound_of(field), None, _NEVER
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        text = FieldDescriptor.TYPE_STRING
        assert all(each.type == text for each in kind.fields), field.full_name
        harmless = min(bound.bytes, 2 * bound.count, bound.total or _NEVER)
        return _FieldCheck(field.name, harmless, has_presence=False, check=_map_check(bound))
    if kind is not None:
        inner = _checks_of(kind)
        of_one, harmless = (lambda value, size, path: inner.check(value, size, f"{path}.")), inner.harmless
    elif field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
        of_one, harmless = _text_check(bound), bound.bytes
    if field.is_repeated:
        harmless = min(harmless, bound.count, bound.total or _NEVER)  # a number in a list may take a single byte
        return _FieldCheck(field.name, harmless, has_presence=False, check=_list_check(bound, of_one))
    return None if of_one is None else _FieldCheck(field.name, harmless, field.has_presence, of_one)


def _text_check(bound: Bound) -> Callable[[str | bytes, int, str], None]:
    def check_text(value: str | bytes, size: int, path: str) -> None:
        _within(_bytes_of(value), bound.bytes, path)

    return check_text


def _list_check(
    bound: Bound, of_one: Callable[[Any, int, str], None] | None
) -> Callable[[Iterable[Any], int, str], None]:
    def check_list(values: Any, size: int, path: str) -> None:
        _few(len(values), bound.count, path)
        if of_one is None:
            return
        for number, value in enumerate(values):
            of_one(value, size, f"{path}[{number}]")
        if bound.total is not None:
            _within(sum(map(_bytes_of, values)), bound.total, path)

    return check_list


def _map_check(bound: Bound) -> Callable[[Mapping[str, str], int, str], None]:
    def check_map(values: Mapping[str, str], size: int, path: str) -> None:
        _few(len(values), bound.count, path)
        total = 0
        for text in (text for item in values.items() for text in item):
            _within(one := _bytes_of(text), bound.bytes, path)
            total += one
        if bound.total is not None:
            _within(total, bound.total, path)

    return check_map


def _bytes_of(value: str | bytes) -> int:
    return len(value) if isinstance(value, bytes) or value.isascii() else len(value.encode())


def _within(size: int, most: int, path: str) -> None:
    if size > most:
        raise InvalidArgument(f"{path}: {size} bytes; at most {most} are allowed", field=path)


def _few(count: int, most: int, path: str) -> None:
    if count > most:
        raise InvalidArgument(f"{path}: {count} elements; at most {most} are allowed", field=path)
