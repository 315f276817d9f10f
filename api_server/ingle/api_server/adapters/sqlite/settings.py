"""A VM's settings as the JSON of one column, and back: strictly, by the types that VmSettings declares.

A setting that is added later needs nothing here. What was stored before it has its default, so it must have one; a
change of what a stored value means is a new version, and a migration.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.vm import VmSettings

VERSION = 1
_VERSION_KEY = "v"

Decode = Callable[[Any], Any]


def encoded(settings: VmSettings) -> str:
    """The column."""
    return json.dumps({_VERSION_KEY: VERSION} | _plain(settings), ensure_ascii=False)


@lru_cache(maxsize=2048)  # VMs have a lot in common, and to parse a column again and again is most of what a list takes
def decoded(column: str) -> VmSettings:
    """The settings in a column. Raises HostProblem: BAD_VERSION for what a newer ingle wrote, else INTERNAL."""
    try:
        value = json.loads(column)
        version = value.pop(_VERSION_KEY)
    except (ValueError, TypeError, AttributeError, KeyError):
        raise HostProblem(Reason.INTERNAL, f"settings of a VM: no JSON object with a version: {column[:80]}") from None
    if version != VERSION:
        raise HostProblem(
            Reason.BAD_VERSION,
            f"settings of a VM were written by another ingle (version {version!r}; this one knows {VERSION})",
            "upgrade ingle",
        )
    settings: VmSettings = _SETTINGS(value)
    return settings


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


def _decoder(kind: Any) -> Decode:
    """What makes a value of that type from JSON's, and refuses any other."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        item = _decoder(arguments[0])
        return lambda value: tuple(item(each) for each in _checked(value, list))
    if origin is Mapping:
        item = _decoder(arguments[1])
        return lambda value: MappingProxyType({key: item(each) for key, each in _checked(value, dict).items()})
    if is_dataclass(kind):
        return _object(kind)
    if issubclass(kind, Enum):
        return _member(kind)
    return lambda value: _checked(value, kind)


def _object(kind: Any) -> Decode:
    hints = get_type_hints(kind)
    known = {field.name: _decoder(hints[field.name]) for field in fields(kind)}
    required = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}

    def decode(value: Any) -> Any:
        found = _checked(value, dict)
        if wrong := (required - found.keys()) | (found.keys() - known.keys()):
            raise HostProblem(Reason.INTERNAL, f"settings of a VM: {', '.join(sorted(wrong))} missing or not known")
        return kind(**{name: known[name](item) for name, item in found.items()})

    return decode


def _member(kind: type[Enum]) -> Decode:
    members = {member.value: member for member in kind}

    def decode(value: Any) -> Enum:
        if not isinstance(value, str) or value not in members:
            raise HostProblem(Reason.INTERNAL, f"settings of a VM: {value!r} is no {kind.__name__}")
        return members[value]

    return decode


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:  # isinstance would take true for a number
        raise HostProblem(Reason.INTERNAL, f"settings of a VM: {value!r} is no {kind.__name__}")
    return value


_SETTINGS = _object(VmSettings)
