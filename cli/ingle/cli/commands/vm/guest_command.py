"""What `ingle vm run` and `ingle vm exec` share: options of a guest command, and what they make of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import Client, duration
from ingle.cli.errors import CliError, failed, refused_by_the_system
from ingle.cli.options import Span, as_option
from ingle.cli.quantities import parse_umask
from ingle.cli.ulimits import parse_ulimits
from ingle.v1.guest_pb2 import ExecRequest, ExecResponse, ExecStart, ResourceLimit

User = Annotated[
    str,
    typer.Option(
        "--user",
        "-u",
        metavar="USER[:GROUP]",
        help="Names or numbers in the guest, with all its groups; the image's, or root, unless given.",
        autocompletion=completion.guest_users,
    ),
]
Workdir = Annotated[
    str,
    typer.Option(
        "--workdir", "-w", metavar="DIR", help="Directory in the guest; the image's, or the user's home, unless given."
    ),
]
Timeout = Annotated[
    timedelta | None,
    typer.Option("--timeout", metavar="DURATION", parser=Span, help="Kill the command after e.g. 30s: exit code 124."),
]
Umask = Annotated[
    int | None,
    typer.Option("--umask", metavar="OCTAL", parser=as_option(parse_umask), help="E.g. 027; 022 unless given."),
]
Ulimits = Annotated[
    list[str],
    typer.Option("--ulimit", metavar="NAME=SOFT[:HARD]", help="Limit a resource, e.g. nofile=1024:4096 (repeatable)."),
]
WaitOutput = Annotated[
    bool,
    typer.Option(
        "--wait-output", help="Wait for all output, also of what the command leaves behind: not for 2 s only."
    ),
]
Stdin = Annotated[
    bool | None,
    typer.Option("--stdin/--no-stdin", "-i", help="Pass stdin on; done without asking when it is not a terminal."),
]

Tty = Annotated[
    bool, typer.Option("--tty", "-t", help="Give it this terminal, as a shell or an editor wants; -i is then implied.")
]


def begin_detached(client: Client, start: ExecStart) -> tuple[int, str]:
    """The pid of a command in the guest that goes on without us, and the op_id of its start. Raises CliError."""
    call = client.begin(ExecRequest(start=start), ExecResponse)
    pids = [response.started.pid for response in call if response.HasField("started")]
    if not pids or call.stream.status is None:
        raise failed("GUEST_PROTOCOL", "the call ended without the command's pid")
    return pids[0], call.stream.status.op_id


def guest_argv(words: list[str]) -> list[str]:
    """The guest command: what follows an optional `--`. An option in its place was meant for us, and came too late."""
    if words and words[0] == "--":
        return words[1:]
    if words and words[0].startswith("-"):
        raise typer.BadParameter(f"put {words[0]} before the VM, or -- before a command of that name")
    return words


def limits_of(ulimits: list[str]) -> list[ResourceLimit]:
    """--ulimit, which is a usage error when it makes no sense."""
    try:
        return parse_ulimits(ulimits)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--ulimit'") from error


def exec_start(
    vm: str,
    argv: list[str],
    env: dict[str, str],
    workdir: str,
    user: str,
    timeout: timedelta | None,
    umask: int | None,
    limits: list[ResourceLimit],
) -> ExecStart:
    """The first message of an exec, without stdin."""
    return ExecStart(
        vm=vm,
        argv=argv,
        env=env,
        working_directory=workdir,
        user=user,
        timeout=duration(timeout),
        umask=umask,
        limits=limits,
    )


@contextmanager
def told_apart_from_the_guest() -> Iterator[None]:
    """Give failures of ingle's exit codes that a guest command seldom has."""
    try:
        yield
    except CliError as error:
        raise error.while_running_a_command() from error
    except BrokenPipeError:  # nobody reads: no failure of anybody's
        raise
    except OSError as error:
        raise refused_by_the_system(error).while_running_a_command() from error
