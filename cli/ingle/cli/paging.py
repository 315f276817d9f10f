"""Lists that come a page at a time."""

from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.message import Message

from ingle.cli.client import Client
from ingle.cli.errors import failed

_MOST_PAGES = 1000

_R = TypeVar("_R", bound=Message)


def pages(client: Client, request: Any, response_type: type[_R]) -> Iterator[_R]:
    """All pages, which end: a token that came before is refused, and so is a list of more pages than any has.

    `request` has a `page_token`, and the response a `next_page_token`."""
    seen: set[str] = set()
    while True:
        page: Any = client.call(request, response_type)
        yield page
        if not page.next_page_token:
            return
        if page.next_page_token in seen or len(seen) == _MOST_PAGES:
            raise failed("GUEST_PROTOCOL", f"the list does not end: behind {len(seen) + 1} pages there are more")
        seen.add(page.next_page_token)
        request.page_token = page.next_page_token
