"""Labels: what callers write on their VMs, to find them again. ingle gives them no meaning."""

import re
from collections.abc import Mapping

from ingle.api_server.model.errors import InvalidArgument

_MOST = 64
_LONGEST_VALUE = 255
_KEY = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?")


def has_all(labels: Mapping[str, str], wanted: Mapping[str, str | None]) -> bool:
    """Whether all that are `wanted` are there; None: whatever its value."""
    return all(key in labels and value in (None, labels[key]) for key, value in wanted.items())


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise InvalidArgument unless there are few, and short ones, that can be typed and printed in one line."""
    if len(labels) > _MOST:
        raise InvalidArgument(f"{len(labels)} labels: a VM can have {_MOST}", field="labels")
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            raise InvalidArgument(
                f"label {key[:100]!r}: 63 of a-z, 0-9, '.', '_', '/' and '-' are allowed, between letters or digits",
                "--label com.example/team=web",
                field="labels",
            )
        if len(value) > _LONGEST_VALUE or not value.isprintable():
            raise InvalidArgument(
                f"label {key}: its value can be {_LONGEST_VALUE} printable characters",
                "--label team=web",
                field="labels",
            )
