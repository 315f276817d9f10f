"""Options and arguments that several commands share, and how their text becomes values.

Text is checked for its form alone; whether a value makes sense is for the server to say, to every client alike."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ingle.cli import completion, waiting
from ingle.cli.quantities import parse_duration, parse_size, parse_time

if TYPE_CHECKING:
    from ingle.v1.vm_pb2 import PublishedPort

_T = TypeVar("_T")

_UINT32_MAX = (1 << 32) - 1

_ENV_FILE_HINT = "'--env-file'"

OPTIONS_FIRST = {"allow_interspersed_args": False}
"""Context settings of a command that takes a guest command: what follows the first argument belongs to the guest."""


@dataclass
class Settings:
    """What holds for the whole command line; filled while it is read."""

    json: bool = False


def as_option(parse: Callable[[str], _T]) -> Callable[[str | _T], _T]:
    """A parser for Typer. It turns a ValueError into a usage error that says the same, of which Typer would keep only
    the value; and it lets defaults pass, which are values already."""

    def parser(given: str | _T) -> _T:
        if not isinstance(given, str):
            return given
        try:
            return parse(given)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return parser


def parse_count(text: str) -> int:
    """A whole number that a uint32 of the contract can hold."""
    if not text.isascii() or not text.isdigit() or int(text) > _UINT32_MAX:
        raise ValueError(f"{text!r} is not a whole number from 0 to {_UINT32_MAX}")
    return int(text)


def parse_forks(text: str) -> int:
    """The same from 1 on."""
    count = parse_count(text)
    if not count:
        raise ValueError("0 forks are none: give 1 or more, up to 100")
    return count


def parse_count_or_none(text: str) -> int:
    """The same, or "none", which is 0."""
    return 0 if text == "none" else parse_count(text)


def parse_environment(assignments: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE, or KEY alone for the value it has here."""
    environment = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not key:
            raise _bad_assignment(f"{assignment!r}: give KEY=VALUE, or KEY to pass your own on")
        if not equals:
            if key not in os.environ:
                raise _bad_assignment(f"{key} is not set here: give {key}=VALUE")
            value = os.environ[key]
        environment[key] = value
    return environment


def read_environment(files: Iterable[str], assignments: Iterable[str] = ()) -> dict[str, str]:
    """Of --env-file and --env, which counts where both have a variable."""
    environment = {}
    for file in files:
        try:
            with open(file, encoding="utf-8-sig", newline="\n") as lines:
                for number, line in enumerate(lines, 1):
                    environment.update(_line_of_environment(line.removesuffix("\n").removesuffix("\r"), file, number))
        except OSError as error:
            raise typer.BadParameter(f"{file}: {error.strerror}", param_hint=_ENV_FILE_HINT) from error
        except UnicodeDecodeError as error:
            raise typer.BadParameter(f"{file}: it is not UTF-8", param_hint=_ENV_FILE_HINT) from error
    return {**environment, **parse_environment(assignments)}


def _line_of_environment(line: str, file: str, number: int) -> dict[str, str]:
    """As docker reads it: all behind the first = is the value, quotes too; a name alone passes on what is set here."""
    line = line.lstrip()
    if not line or line.startswith("#"):
        return {}
    key, equals, value = line.partition("=")
    if not key or key != "".join(key.split()):
        raise typer.BadParameter(
            f"{file}:{number}: {line!r}: give KEY=VALUE, KEY to pass your own on, or # and a comment",
            param_hint=_ENV_FILE_HINT,
        )
    if equals:
        return {key: value}
    return {key: os.environ[key]} if key in os.environ else {}


_PUBLISHED = re.compile(
    r"(((?P<address>\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(?P<host_port>[0-9]{1,5}):)?(?P<vm_port>[0-9]{1,5})(/(?P<protocol>tcp|udp))?"
)


def parse_published(ports: Iterable[str]) -> "list[PublishedPort]":
    """[[ADDRESS:]HOST_PORT:]VM_PORT[/tcp|/udp]; without HOST_PORT it is the same on both sides."""
    from ingle.v1.protocol_pb2 import PROTOCOL_TCP, PROTOCOL_UDP  # noqa: PLC0415 - only few commands need it
    from ingle.v1.vm_pb2 import PublishedPort  # noqa: PLC0415

    protocols = {"": PROTOCOL_TCP, "tcp": PROTOCOL_TCP, "udp": PROTOCOL_UDP}
    published = []
    for text in ports:
        found = _PUBLISHED.fullmatch(text)
        if found is None:
            raise typer.BadParameter(
                f"{text!r}: give [[ADDRESS:]HOST_PORT:]VM_PORT[/udp], e.g. 8080:80, 127.0.0.1:8080:80 or [::1]:8080:80",
                param_hint="'--publish' / '-p'",
            )
        published.append(
            PublishedPort(
                address=(found["address"] or "").strip("[]"),
                host_port=int(found["host_port"] or found["vm_port"]),
                vm_port=int(found["vm_port"]),
                protocol=protocols[found["protocol"] or ""],
            )
        )
    return published


def read_public_keys(files: Iterable[str]) -> list[str]:
    """The lines of .pub or authorized_keys files, less empty ones and comments."""
    keys = []
    for file in files:
        try:
            with open(file, encoding="utf-8", errors="replace") as lines:
                found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        except OSError as error:
            raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="'--ssh-key'") from error
        if not found:
            raise typer.BadParameter(f"{file}: there is no key in it", param_hint="'--ssh-key'")
        keys += found
    return keys


def _bad_assignment(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="'--env' / '-e'")


def _choose_json(context: typer.Context, wanted: bool) -> bool:
    if wanted:
        context.find_root().obj.json = True
        waiting.keep_silent()
    return wanted


AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, also for errors (on stderr).", callback=_choose_json),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print a line per stage with its time, on stderr.")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would be.")]
Refresh = Annotated[bool, typer.Option("--refresh", help="Make it anew even when it is here.")]

VmReference = Annotated[
    str,
    typer.Argument(metavar="VM", help="Name, id, or a unique prefix of an id.", autocompletion=completion.vm_names),
]
VmReferences = Annotated[
    list[str],
    typer.Argument(metavar="VM...", help="Names, ids, or unique id prefixes.", autocompletion=completion.vm_names),
]

Environment = Annotated[
    list[str],
    typer.Option("--env", "-e", metavar="KEY[=VALUE]", help="Set a variable (repeatable); KEY alone passes yours on."),
]
EnvironmentFiles = Annotated[
    list[str],
    typer.Option("--env-file", metavar="FILE", help="Lines of KEY=VALUE, or KEY (repeatable); --env counts more."),
]
Publish = Annotated[
    list[str],
    typer.Option(
        "--publish",
        "-p",
        metavar="[[ADDRESS:]HOST:]PORT[/udp]",
        help="Let every address of the host, or one, have a port of the guest (repeatable), e.g. 8080:80.",
    ),
]
StopTimeout = Annotated[
    timedelta | None,
    typer.Option(
        "--timeout",
        "-t",
        metavar="DURATION",
        parser=as_option(parse_duration),
        help="How long the guest may take before it is killed; 10s unless given.",
    ),
]
Size = as_option(parse_size)
Count = as_option(parse_count)
Span = as_option(parse_duration)


def time_option(name: str, text: str) -> Any:
    """One that takes a time, or a duration before now."""
    return typer.Option(name, metavar="TIME|DURATION", parser=as_option(parse_time), help=text)
