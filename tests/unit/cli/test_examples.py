"""What help gives as examples can be typed."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from ingle.cli import signals
from ingle.cli.app import app
from ingle.cli.options import Settings


def examples(command: Any) -> Iterator[str]:
    """The example lines in the help of it and of all below it."""
    yield from (line.strip() for line in (command.epilog or "").partition("Examples:\n")[2].splitlines())
    if isinstance(command, TyperGroup):
        for child in command.commands.values():
            yield from examples(child)


def command_lines(example: str) -> Iterator[list[str]]:
    """The words of each `ingle` in a shell's line."""
    example = re.sub(r"[$<]\((ingle [^)]*)\)", r"x; \1;", example)
    lexer = shlex.shlex(example, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if re.fullmatch(r"[|&;<>]+", word):
            if words[:1] == ["ingle"]:
                yield words[1:]
            words = []
        else:
            words.append(word)


LINES = [(example, words) for example in dict.fromkeys(examples(get_command(app))) for words in command_lines(example)]


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing a command line makes signals those of a command."""
    monkeypatch.setattr(signals, "pass_every_finally", lambda: None)


@pytest.mark.parametrize(("example", "words"), LINES, ids=[" ".join(words) for _, words in LINES])
def test_an_example_of_help_is_a_command_line(example: str, words: list[str]) -> None:
    command: Any = get_command(app)
    context = typer.Context(command, info_name="ingle", obj=Settings())
    while isinstance(command, TyperGroup) and words:
        name, command, words = command.resolve_command(context, words)
        assert command is not None, example
    command.make_context(name, list(words), parent=context)


def test_there_are_examples() -> None:
    assert len(LINES) > 100
