"""Lists end."""

from itertools import count
from typing import Any

import pytest

from ingle.cli.errors import CliError
from ingle.cli.paging import pages
from ingle.v1 import guest_pb2


class Server:
    """Answers page after page."""

    def __init__(self, tokens: Any) -> None:
        self._tokens = iter(tokens)
        self.asked: list[str] = []

    def call(self, request: guest_pb2.ListDirectoryRequest, _: object) -> guest_pb2.ListDirectoryResponse:
        self.asked.append(request.page_token)
        return guest_pb2.ListDirectoryResponse(next_page_token=next(self._tokens))


def taken(server: Any) -> int:
    request = guest_pb2.ListDirectoryRequest(path="/x")
    return sum(1 for _ in pages(server, request, guest_pb2.ListDirectoryResponse))


def test_all_pages_are_asked_for() -> None:
    server = Server(["a", "b", ""])
    assert taken(server) == 3
    assert server.asked == ["", "a", "b"]


@pytest.mark.parametrize("tokens", [["a", "a"], ["a", "b", "a"], map(str, count(1))], ids=["same", "circle", "endless"])
def test_a_list_without_end_is_refused(tokens: Any) -> None:
    with pytest.raises(CliError, match="does not end"):
        taken(Server(tokens))
