"""What a command prints: data on stdout, for people as tables and fields or for scripts as JSON; the rest on stderr."""

import codecs
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

import typer

from ingle.cli.errors import CliError, Failure
from ingle.cli.printable import escaped, indented, one_line, printable, without_colours

_LONGEST_LINE = 64 * 1024

NAMELESS = "<none>"
"""What stands in a table for a name that was given to another."""


def say(text: str = "") -> None:
    """The answer of a command, for a person."""
    typer.echo(printable(text))  # noqa: TID251 - here alone, and below


def print_json(value: object) -> None:
    """The whole answer of a command, for a script."""
    say(_json(value, indent=2))


def print_json_line(value: object) -> None:
    """One of many answers, for a script that reads line by line."""
    say(_json(value))


def tell(text: str) -> None:
    """A line for the person, never for a pipe: stderr."""
    typer.echo(printable(text), err=True)  # noqa: TID251


def tell_failure(failure: Failure, *, as_json: bool) -> None:
    """One failure on stderr: a few lines, or JSON on one line."""
    tell(_json(failure.as_json()) if as_json else failure.as_text())


class ConsoleOutput:
    """What a guest's console said, or another log that a guest may have a hand in: byte for byte to a file or a pipe,
    as text to a terminal."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if is_terminal(sys.stdout) else None
        self._line = ""

    def write(self, data: bytes) -> None:
        """Show it, at once but for a line that has not ended yet."""
        if self._decoder is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        *lines, self._line = (self._line + self._decoder.decode(data)).split("\n")
        if len(self._line) > _LONGEST_LINE:
            lines, self._line = [*lines, self._line], ""
        for line in lines:
            say(without_colours(line.rstrip("\r")))

    def end(self) -> None:
        """Show what is left."""
        if self._line:
            say(without_colours(self._line.rstrip("\r")))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it. Python gives None for a stream that was closed before it started."""
    return stream is not None and not stream.closed and stream.isatty()


def person_watches() -> bool:
    """Whether what goes to stderr is seen while it happens."""
    return is_terminal(sys.stderr)


def ask_first(question: str, without_asking: str) -> None:
    """Go on only when the person says so. `without_asking` is the command for where nobody can be asked."""
    if not is_terminal(sys.stdin) or not person_watches():
        raise CliError(Failure("INVALID_ARGUMENT", "nobody is there to be asked", without_asking))
    typer.confirm(one_line(question), abort=True, err=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as need be, two spaces apart; without rows the headings alone."""
    lines = [tuple(headings), *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """One `name  value` line each; empty values are left out, and further lines of one are indented."""
    told = [(one_line(name), printable(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in told), default=0)
    return "\n".join(f"{name.ljust(width)}  {indented(value)}" for name, value in told)


def _json(value: object, indent: int | None = None) -> str:
    import json  # noqa: PLC0415 - not loaded for a table

    return escaped(json.dumps(value, indent=indent, ensure_ascii=False))
