"""Modes as chmod takes them."""

import pytest

from ingle.cli.commands.vm.file import _parse_mode


@pytest.mark.parametrize(("text", "mode"), [("644", 0o644), ("0755", 0o755), ("7777", 0o7777), ("0", 0)])
def test_a_mode_is_octal(text: str, mode: int) -> None:
    assert _parse_mode(text) == mode


@pytest.mark.parametrize("text", ["-1", "888", "10000", "0o644", "u+x", ""])
def test_what_no_file_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="octal mode such as 644"):
        _parse_mode(text)
