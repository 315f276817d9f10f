"""The table `mirrors` of the configuration: registries that are asked in the place of others."""

import re
from collections.abc import Mapping, Sequence

from ingle.api_server.model.errors import InvalidArgument

_MIRROR = re.compile(r"[A-Za-z0-9.\[\]:-]{1,255}(/[a-z0-9._-]{1,128}){0,8}")
_HOST = re.compile(r"[A-Za-z0-9.\[\]:-]{1,255}")
_MOST = 8


def mirrors_of(table: object, origin: str) -> Mapping[str, Sequence[str]]:
    """By the registry's host, those to ask first, in order. Raises InvalidArgument."""
    if not isinstance(table, dict) or not all(
        _HOST.fullmatch(host)
        and isinstance(mirrors, list)
        and len(mirrors) <= _MOST
        and all(isinstance(mirror, str) and _MIRROR.fullmatch(mirror) for mirror in mirrors)
        for host, mirrors in table.items()
    ):
        raise InvalidArgument(
            f"{origin}: mirrors: by the host of a registry, a list of at most {_MOST} HOST[:PORT][/PREFIX] is allowed",
            f'write "docker.io" = ["mirror.example.org"] below [mirrors] in {origin}',
        )
    return table
