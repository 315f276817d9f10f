"""What help gives as examples can be typed."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer._click.exceptions import UsageError
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


def parse(words: list[str]) -> None:
    """As `ingle` reads them, but for doing it. Raises what wrong usage raises."""
    command: Any = get_command(app)
    context = typer.Context(command, info_name="ingle", obj=Settings())
    while isinstance(command, TyperGroup) and words:
        name, command, words = command.resolve_command(context, words)
        if isinstance(command, TyperGroup):
            context = typer.Context(command, parent=context, info_name=name, obj=context.obj)
    command.make_context(name, list(words), parent=context)


@pytest.mark.parametrize(("example", "words"), LINES, ids=[" ".join(words) for _, words in LINES])
def test_an_example_of_help_is_a_command_line(example: str, words: list[str]) -> None:
    parse(words)


def test_there_are_examples() -> None:
    assert len(LINES) > 100


@pytest.mark.parametrize(
    "habit",
    [
        *["vm help", "image help pull", "info", "status", "status web", "inspect web"],
        *[
            "build .",
            "build -t mine .",
            "import base.tar",
            "load -i app.tar",
            "image add x",
        ],
        *["kernel create vmlinuz", "kernel add -n mine vmlinuz", "image create -n base --rootfs x"],
        *[
            "container ls -a",
            "container rm -f web",
            "container",
            "rmi -f old",
            "image remove -f old",
            "images",
            "pull x",
        ],
        *[
            "top web",
            "top",
            "logs -f -n 5 web",
            "log web",
            "rm -f web",
            "stop -t 5s web",
            "rename a b",
        ],
        *["attach web", "ssh web", "port web", "reboot web", "poweroff web", "destroy web", "create --name web"],
    ],
)
def test_what_a_habit_is_answered_with_can_be_typed(habit: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(habit.split())
    meant = re.search(r"it is `ingle (.*)`", refused.value.format_message())
    assert meant, refused.value.format_message()
    with contextlib.suppress(typer.Exit):  # of --help
        parse(shlex.split(meant[1]))


@pytest.mark.parametrize(
    "typed", ["ps -a", "ls --all", "vm list -a", "vm ps -a", "vm logs -n 3 web", "server logs -n 3"]
)
def test_options_that_fingers_know_are_taken(typed: str) -> None:
    parse(typed.split())
