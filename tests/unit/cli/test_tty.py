"""The keys that leave a session."""

import pytest

from ingle.cli.errors import CliError
from ingle.cli.tty import KeyWatch, parse_keys, require_terminal


@pytest.mark.parametrize(
    ("argv", "remedy"),
    [([], "ingle vm exec web -- sh"), (["sh", "-c", "wc -l"], "ingle vm exec web -- sh -c 'wc -l'")],
)
def test_without_a_terminal_the_remedy_has_the_command_that_was_given(argv: list[str], remedy: str) -> None:
    with pytest.raises(CliError) as refused:
        require_terminal("web", argv)
    assert refused.value.failures[0].remedy == remedy


def test_keys_are_written_as_for_docker() -> None:
    assert parse_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_keys("ctrl-a,d") == b"\x01d"
    assert parse_keys("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_") == b"\x00\x1b\x1c\x1d\x1e\x1f"
    assert parse_keys("") == b""


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ctrl-ab", "ab", ",", "a,,b", "ü", "ctrl-ü"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        parse_keys(text)


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"hello"], b"hello", False),
        ([b"ab\x10\x11rest"], b"ab", True),
        ([b"ab\x10", b"\x11"], b"ab", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10", b"\x10", b"\x11"], b"\x10", True),
        ([b"\x10"], b"", False),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_the_sequence_is_found_however_it_is_cut(typed: list[bytes], passed: bytes, detached: bool) -> None:
    watch = KeyWatch(b"\x10\x11")
    results = [watch.feed(piece) for piece in typed]
    assert (b"".join(data for data, _ in results), results[-1][1]) == (passed, detached)


def test_a_key_that_is_held_too_long_goes_to_the_guest_and_still_begins_the_sequence() -> None:
    watch = KeyWatch(b"\x10\x11")
    assert watch.feed(b"a\x10") == (b"a", False)
    assert (watch.holds, watch.release(), watch.holds) == (True, b"\x10", False)
    assert watch.feed(b"\x10") == (b"", False)
    assert watch.release() == b"\x10"
    assert watch.feed(b"b\x10") == (b"b", False)
    assert watch.release() == b"\x10"
    assert watch.feed(b"\x11c") == (b"", True)


def test_without_keys_everything_passes() -> None:
    assert KeyWatch(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
