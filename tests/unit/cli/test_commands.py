"""The tree of commands as a whole: its help, and what loading it costs."""

import subprocess
import sys
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


def test_the_first_help_tells_of_commands_what_they_tell_themselves() -> None:
    root = cast("Group", get_command(app))
    for name, target in root.targets.items():
        assert target.help == root.commands[name].get_short_help_str(limit=200), name


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (("--help",), {"grpc", "rich", "asyncio", "google", "h2"}),
        (("vm", "run", "--help"), {"grpc", "rich", "asyncio"}),
        (("vm", "list"), {"grpc", "rich", "asyncio", "json", "google.rpc", "concurrent", "tempfile"}),
        (("vm", "exec", "web", "--", "true"), {"grpc", "rich", "asyncio", "concurrent"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_short_command_imports_only_what_it_needs(arguments: tuple[str, ...], forbidden: set[str]) -> None:
    """Start-up time is a feature; modules are counted since clocks are not to be trusted in tests."""
    program = (
        "import sys, atexit\n"
        "from ingle.cli.__main__ import main\n"
        "atexit.register(lambda: print('loaded:', *sys.modules, file=sys.stderr))\n"
        "main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={"PATH": "/usr/bin:/bin", "INGLE_SOCKET": "/nonexistent/api.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = set(ran.stderr.partition("loaded: ")[2].split())
    assert "typer" in loaded
    assert {module for module in loaded if any(module == f or module.startswith(f"{f}.") for f in forbidden)} == set()
