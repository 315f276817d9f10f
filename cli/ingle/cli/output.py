"""What a command prints: data on stdout, for people as tables and fields or for scripts as JSON; the rest on stderr."""

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

import typer

from ingle.cli.errors import Failure

NAMELESS = "<none>"
"""What stands in a table for a name that was given to another."""


def print_json(value: object) -> None:
    """The whole answer of a command, for a script."""
    typer.echo(_json(value, indent=2))


def print_json_line(value: object) -> None:
    """One of many answers, for a script that reads line by line."""
    typer.echo(_json(value))


def tell(text: str) -> None:
    """A line for the person, never for a pipe: stderr."""
    typer.echo(text, err=True)


def tell_failure(failure: Failure, *, as_json: bool) -> None:
    """One failure on stderr: a few lines, or JSON on one line."""
    tell(_json(failure.as_json()) if as_json else failure.as_text())


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it. Python gives None for a stream that was closed before it started."""
    return stream is not None and not stream.closed and stream.isatty()


def person_watches() -> bool:
    """Whether what goes to stderr is seen while it happens."""
    return is_terminal(sys.stderr)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as need be, two spaces apart; without rows the headings alone."""
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """One `name  value` line each; empty values are left out."""
    told = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in told), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in told)


def _json(value: object, indent: int | None = None) -> str:
    import json  # noqa: PLC0415 - not loaded for a table

    return json.dumps(value, indent=indent, ensure_ascii=False)
