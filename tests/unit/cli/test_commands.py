"""The tree of commands as a whole: its help."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from ingle.cli.app import app
from ingle.cli.lazy import Group


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))


ALL = list(commands(get_command(app)))


def help_of(path: tuple[str, ...], command: Any) -> str:
    return cast("str", command.get_help(typer.Context(command, info_name=" ".join(("ingle", *path)))))


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) or "ingle" for path, _ in ALL])
def test_help_says_what_it_does_and_gives_examples(path: tuple[str, ...], command: Any) -> None:
    text = help_of(path, command)
    assert text.splitlines()[2].strip(), text
    if not isinstance(command, TyperGroup) or not path:
        examples = text.partition("Examples:\n")[2].splitlines()
        assert examples, text
        assert any(" ".join(path[-1:]) in line for line in examples), text


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) or "ingle" for path, _ in ALL])
def test_help_fits_a_terminal(path: tuple[str, ...], command: Any) -> None:
    assert max(map(len, help_of(path, command).splitlines())) <= 100


@pytest.mark.parametrize("path", [(), ("vm",)], ids=" ".join)
def test_help_of_a_group_tells_of_commands_what_they_tell_themselves(path: tuple[str, ...]) -> None:
    group = cast("Group", dict(ALL)[path])
    for name, target in group.targets.items():
        assert target.help == group.commands[name].get_short_help_str(limit=200), name


def test_a_change_of_a_vm_speaks_of_no_defaults_since_what_is_not_given_stays() -> None:
    text = help_of(("vm", "update"), dict(ALL)["vm", "update"])
    assert "--vcpu" in text
    assert "unless configured" not in text
