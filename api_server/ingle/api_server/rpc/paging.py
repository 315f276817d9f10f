"""Lists, a page at a time. A token says behind what the next page begins, not how far that is: nothing is told twice
or left out because something else came or went meanwhile."""

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from ingle.api_server.model.errors import InvalidArgument

MOST_A_PAGE = 1000
MOST_BYTES = 3 * 1024 * 1024
"""Of a page; clients take 4 MiB unless told otherwise."""

Key = tuple[int | str, ...]
"""By what a list is ordered; no two items have the same."""

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)


class Paged(Protocol):
    """A request of a list."""

    page_size: int
    page_token: str
    DESCRIPTOR: Descriptor


def page(
    items: Iterable[_T], key: Callable[[_T], Key], request: Paged, told: Callable[[_T], _M]
) -> tuple[list[_M], str]:
    """What `request` asks for, as `told`, and the token of the next page; empty where there is none.

    Raises InvalidArgument for a size or a token that can't be."""
    if request.page_size > MOST_A_PAGE:
        raise InvalidArgument(
            f"page_size {request.page_size}: at most {MOST_A_PAGE} is allowed, which is also what 0 means",
            field="page_size",
        )
    size, name = request.page_size or MOST_A_PAGE, request.DESCRIPTOR.name
    keyed = sorted(((key(item), item) for item in items), key=lambda pair: pair[0])
    if request.page_token:
        behind = _read(request.page_token, name, kinds=[type(part) for part in keyed[0][0]] if keyed else None)
        keyed = [pair for pair in keyed if pair[0] > behind]
    messages: list[_M] = []
    taken = 0
    last: Key = ()
    for last_key, item in keyed[:size]:
        message = told(item)
        taken += message.ByteSize() + 8
        if messages and taken > MOST_BYTES:
            break
        messages.append(message)
        last = last_key
    return messages, _written(name, last) if len(messages) < len(keyed) else ""


class Made(Protocol):
    """What came to be at a time."""

    @property
    def id(self) -> str:
        """No other has it."""

    @property
    def created_at(self) -> datetime:
        """UTC."""


def by_time(item: Made) -> Key:
    """Oldest first."""
    return (round(item.created_at.timestamp() * 1e6), item.id)


def newest_first(item: Made) -> Key:
    """The other way round."""
    return (-round(item.created_at.timestamp() * 1e6), item.id)


def _written(name: str, key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([name, *key]).encode()).decode()


def _read(token: str, name: str, kinds: list[type] | None) -> Key:
    try:
        parts = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error):
        parts = None
    if not isinstance(parts, list) or parts[:1] != [name]:
        raise _no_token()
    if kinds is not None and [type(part) for part in parts[1:]] != kinds:
        raise _no_token()
    return tuple(parts[1:])


def _no_token() -> InvalidArgument:
    return InvalidArgument(
        "page_token: it is not one of this list's; give next_page_token of the page before, or none for the first page",
        field="page_token",
    )
