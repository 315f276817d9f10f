"""Errors fit into every language's limit of headers, whatever they quote."""

import base64
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingle.api_server.model.errors import Reason
from ingle.api_server.rpc import errors
from ingle.api_server.rpc.errors import wire_error

_VISIBLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def size_on_the_wire(message: str, details: bytes) -> int:
    return len(quote_from_bytes(message.encode(), safe=_VISIBLE)) + len(base64.b64encode(details))


texts = st.text(max_size=40) | st.builds(
    lambda text, times: text * times, st.text(min_size=1, max_size=4), st.integers(1, 5000)
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(texts, texts)
def test_an_error_is_at_most_4_kib_and_cut_between_characters(message: str, remedy: str) -> None:
    _, status = wire_error(Reason.TOOL_FAILED, message, remedy, "op-0123456789ab")
    assert size_on_the_wire(status.message, status.SerializeToString()) <= 4096
    assert message.startswith(status.message.removesuffix("…"))


@pytest.mark.parametrize("char", ["a", "é", "字", "😀", "%", "\n", "\udc80"])
def test_what_can_be_kept_is_kept(char: str) -> None:
    _, status = wire_error(Reason.TOOL_FAILED, char * 5000, "", "op-0123456789ab")
    assert 3900 < size_on_the_wire(status.message, status.SerializeToString()) <= 4096
    assert status.message.endswith("…")


def test_what_fits_is_not_touched() -> None:
    _, status = wire_error(Reason.TOOL_FAILED, "e" * 1000, "ingle vm list", "op-0123456789ab")
    assert status.message == "e" * 1000


def test_of_what_was_said_at_length_no_more_is_looked_at_than_may_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []

    def counting(char: bytes) -> int:
        looked_at.append(char)
        return 1

    monkeypatch.setattr(errors, "_percent_encoded", counting)
    _, status = wire_error(Reason.TOOL_FAILED, "x" * 100_000, "y" * 100_000, "op-0123456789ab")
    assert status.message.endswith("…")
    assert len(looked_at) < 5000
