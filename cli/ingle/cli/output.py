"""What a command prints: data on stdout for people (tables, fields) or for scripts (--json), failures on stderr."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

import typer

from ingle.cli.errors import Failure


@dataclass
class Output:
    """How to print; --json switches it over while the command line is being read."""

    json: bool = False

    def data(self, value: object, text: str) -> None:
        """`value` (JSON-able) or `text`, as the user wished."""
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False) if self.json else text)

    def failure(self, failure: Failure) -> None:
        """One failure on stderr: JSON of one line, or text."""
        tell(json.dumps(failure.as_json(), ensure_ascii=False) if self.json else failure.as_text())


def tell(text: str) -> None:
    """A line for the person, never for a pipe: stderr."""
    typer.echo(text, err=True)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at it; closed streams are nobody's."""
    return stream is not None and not stream.closed and stream.isatty()


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
