"""The manual page is one that man's programs read, and has all commands."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from ingle.cli.app import app
from ingle.cli.manual import page


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, in a file."""
    file = tmp_path_factory.mktemp("man") / "ingle.1"
    file.write_text(page("1.2.3"))
    return file


def commands(group: TyperGroup, path: str) -> Iterator[str]:
    for name in group.commands:
        child: Any = group.commands[name]
        yield f"{path} {name}"
        if isinstance(child, TyperGroup):
            yield from commands(child, f"{path} {name}")


def test_groff_and_mandoc_have_nothing_to_complain_of(written: Path) -> None:
    for program in (
        ["groff", "-ww", "-b", "-man", "-Tutf8", "-Kutf8", "-z"],
        ["mandoc", "-T", "lint", "-W", "warning"],
    ):
        said = subprocess.run([*program, written], capture_output=True, text=True, check=False)
        assert (said.stdout, said.stderr) == ("", "")


def test_every_command_is_in_it_with_its_options(written: Path) -> None:
    shown = subprocess.run(["mandoc", "-T", "ascii", written], capture_output=True, text=True, check=True).stdout
    text = re.sub(".\b", "", shown)
    for path in commands(cast("TyperGroup", get_command(app)), "ingle"):
        assert f"   {path}\n" in text, path
    assert "--no-trunc" in text
    assert "table {{.name}}\\t{{.id}}" in " ".join(text.split())


def test_what_is_short_for_another_command_is_that_command(written: Path) -> None:
    short = re.findall(r"^\.SS (.*)\nShort for \\fB(.*)\\fR\.$", written.read_text(), re.MULTILINE)
    assert dict(short) == {
        "ingle run": "ingle vm run",
        "ingle exec": "ingle vm exec",
        "ingle shell": "ingle vm shell",
        "ingle ps": "ingle vm list",
    }


def test_the_page_of_one_commit_is_the_same_whenever_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert page("1") == page("1")
    assert '.TH INGLE 1 "2023-11-14" "ingle 1"' in page("1")
