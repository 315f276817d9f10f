"""The table [quotas] of config.toml: limits for every user, and in [quotas.users.NAME] for one.

Users are looked up when they call: an account that is not there, or not yet, is nobody's quota and no error.
"""

import pwd
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import TypeAlias

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.quota import NAMES, NO_LIMITS, Quota, Quotas

SizeOf: TypeAlias = Callable[[object], int]
"""Bytes of what stands in a configuration. Raises ValueError."""

_USERS = "users"
_UNLIMITED = "unlimited"


def quotas_of(table: object, origin: str, size: SizeOf) -> Quotas:
    """What the table says. Raises InvalidArgument, with the place that is wrong."""
    if not isinstance(table, Mapping):
        raise InvalidArgument(f"{origin}: quotas: a table is allowed: [quotas]")
    default = _quota(
        NO_LIMITS, {key: value for key, value in table.items() if key != _USERS}, f"{origin}: quotas", size
    )
    users = table.get(_USERS, {})
    if not isinstance(users, Mapping) or not all(isinstance(each, Mapping) for each in users.values()):
        raise InvalidArgument(f"{origin}: quotas.users: a table for each is allowed: [quotas.users.alice]")
    by_user = {name: _quota(default, each, f"{origin}: quotas.users.{name}", size) for name, each in users.items()}
    return Quotas(default, by_user)


def quota_of(quotas: Quotas, uid: int) -> Quota:
    """That user's."""
    try:
        name = pwd.getpwuid(uid).pw_name if quotas.by_user else ""
    except KeyError:
        name = ""
    return quotas.of(uid, name)


def _quota(base: Quota, table: Mapping[str, object], origin: str, size: SizeOf) -> Quota:
    """The base with what the table has of its own."""
    limits: dict[str, int | None] = {}
    for name, value in table.items():
        if name not in NAMES:
            nearest = get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
            raise InvalidArgument(f"{origin}: unknown key {name!r}; did you mean {nearest!r}?", ", ".join(NAMES))
        limits[name] = _limit(name, value, origin, size)
    return replace(base, **limits)


def _limit(name: str, value: object, origin: str, size: SizeOf) -> int | None:
    if value == _UNLIMITED:
        return None
    try:
        if isinstance(value, bool):
            raise ValueError("true and false are none")
        limit = size(value) if name.endswith("_bytes") else int(str(value))
        if limit < 0:
            raise ValueError("it is less than none")
    except ValueError as error:
        problem = f"{origin}: {name} = {value!r}: a number, or {_UNLIMITED!r}, is allowed ({error})"
        raise InvalidArgument(problem) from None
    return limit
