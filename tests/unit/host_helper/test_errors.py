"""The helper's errors fit into headers, in whatever script a tool has spoken."""

import base64
from typing import Any
from urllib.parse import quote

import pytest

from ingle.host_helper.errors import KernelRefused, abort


class Ended(Exception):
    pass


class Context:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.message = ""

    def set_trailing_metadata(self, metadata: tuple[tuple[str, Any], ...]) -> None:
        self.metadata = dict(metadata)

    def abort(self, _code: object, message: str) -> None:
        self.message = message
        raise Ended


@pytest.mark.parametrize("char", ["a", "字", "😀", "\udc80"])
def test_an_error_is_cut_between_characters_and_stays_below_what_peers_take(char: str) -> None:
    context: Any = Context()
    with pytest.raises(Ended):
        abort(context, "op-0123456789ab", KernelRefused(char * 3000))
    assert context.message.endswith("…")
    details = base64.b64encode(context.metadata["grpc-status-details-bin"])
    assert len(quote(context.message)) + len(details) < 4600
