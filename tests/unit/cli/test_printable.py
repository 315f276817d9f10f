"""What a terminal is given."""

import json
import os
import pty

import pytest

from ingle.cli.errors import Failure
from ingle.cli.output import ConsoleOutput, fields, table
from ingle.cli.printable import escaped, one_line, printable

_OBEYED = "\x1b\x9b\x7f\x00\r\u202e\u2066\u200f\u2028\udcff"


@pytest.mark.parametrize("char", _OBEYED)
def test_what_a_terminal_obeys_is_replaced_in_text_and_spelled_in_json(char: str) -> None:
    assert printable(f"a{char}b") == "a\N{REPLACEMENT CHARACTER}b"
    spelled = escaped(json.dumps([f"a{char}b\U0001f600"], ensure_ascii=False))
    assert char not in spelled
    assert json.loads(spelled) == [f"a{char}b\U0001f600"]


def test_a_cell_begins_no_line_of_its_own() -> None:
    assert one_line("a\nb\tc") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    assert table(("NAME",), [("a\nweb",)]).count("\n") == 1
    assert fields([("problem", "panic\nname  web")]) == "problem  panic\n    name  web"


def test_a_message_forges_no_remedy() -> None:
    assert "\n  remedy" not in Failure("X", "it failed\n  remedy: rm -rf ~").as_text()


def test_a_console_is_shown_to_a_terminal_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        output = ConsoleOutput()
        for byte in "[\x1b[32mok\x1b[0m] ünit\x1b]0;evil\x07\r\n\x1b[2Jhalf".encode():
            output.write(bytes([byte]))
        output.end()
        terminal.flush()
        shown = b""
        while not shown.endswith(b"half\r\n"):
            shown += os.read(ours, 1000)
    os.close(ours)
    assert shown.decode() == "[ok] ünit\ufffd]0;evil\ufffd\r\n\ufffd[2Jhalf\r\n"
