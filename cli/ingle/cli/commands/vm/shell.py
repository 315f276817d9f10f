"""`ingle vm shell`: a login shell that one can come back to."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer

from ingle.cli import completion, tty
from ingle.cli.attachment import attach
from ingle.cli.client import connect, duration
from ingle.cli.commands.vm.guest_command import User, Workdir, told_apart_from_the_guest
from ingle.cli.commands.vm.session import Keys, Steal
from ingle.cli.errors import CliError, failed
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import Environment, Span, parse_environment
from ingle.v1 import guest_pb2, vm_pb2

app = new_app()


@app.command(
    epilog=examples(
        "ingle vm shell web",
        "ingle vm shell                      # of the one VM that runs",
        "ingle vm shell --new web            # one more, beside that",
        "ingle vm shell --steal web          # when it is open elsewhere",
    )
)
def shell(
    vm: Annotated[
        str,
        typer.Argument(metavar="[VM]", help="The one that runs, unless given.", autocompletion=completion.vm_names),
    ] = "",
    new: Annotated[bool, typer.Option("--new", help="Another one, beside those there are.")] = False,
    steal: Steal = False,
    env: Environment = [],  # noqa: B006 - Typer copies it
    user: User = "",
    workdir: Workdir = "",
    idle_timeout: Annotated[
        timedelta | None,
        typer.Option(
            "--idle-timeout", metavar="DURATION", parser=Span, help="End a new one when left and silent for so long."
        ),
    ] = None,
    detach_keys: Keys = tty.DEFAULT_DETACH_KEYS,  # type: ignore[assignment] # a default is parsed as well
) -> None:
    """Open the login shell of a VM, or come back to it.

    It lives on when the connection is lost, or left with Ctrl-P Ctrl-Q, and shows what it said last when you come back.
    Each user has one, and as many more as --new makes."""
    program = guest_pb2.SessionProgram(
        env={**tty.term(), **parse_environment(env)},
        user=user,
        working_directory=workdir,
        idle_timeout=duration(idle_timeout),
    )
    with told_apart_from_the_guest(), connect() as client:
        if not vm:
            vm = _only_running(client.all(vm_pb2.ListVmsRequest(), vm_pb2.ListVmsResponse).vms)
        session_id = "" if new else f"init-{user.replace(':', '.')}" if user else "init"
        start = guest_pb2.AttachSessionStart(vm=vm, session_id=session_id, steal=steal, create=program)
        come_back = f"ingle vm session attach {vm} {{id}}" if new or user else f"ingle vm shell {vm}"
        exit_code = attach(client, start, detach_keys, come_back)
    raise typer.Exit(exit_code)


def _only_running(vms: Sequence[vm_pb2.Vm]) -> str:
    running = [vm.name for vm in vms if vm.state == vm_pb2.VM_STATE_RUNNING]
    if len(running) != 1:
        raise _which_one(running)
    return running[0]


def _which_one(running: list[str]) -> CliError:
    if not running:
        return failed("INVALID_ARGUMENT", "no VM is running", "ingle vm run")
    return failed("INVALID_ARGUMENT", f"{len(running)} VMs are running: name one", f"ingle vm shell {running[0]}")
