"""`ingle vm run`: guest commands on this terminal, in a VM made for each."""

import sys
from datetime import timedelta
from typing import Annotated

import typer

from ingle.cli.client import Client, connect
from ingle.cli.commands.vm.create import create_vm, delete_vm, get_vm, image_names
from ingle.cli.commands.vm.guest_command import (
    Stdin,
    Timeout,
    Tty,
    Ulimits,
    Umask,
    User,
    WaitOutput,
    Workdir,
    begin_detached,
    exec_start,
    guest_argv,
    limits_of,
    told_apart_from_the_guest,
)
from ingle.cli.commands.vm.new_vm import delete_by_another_server, tell_created, tell_kept, told_if_kept
from ingle.cli.commands.vm.vm_options import VmOptions
from ingle.cli.emulation import tell_once
from ingle.cli.errors import SERVER_UNREACHABLE, CliError
from ingle.cli.exec_session import run_command, stdin_wanted
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import OPTIONS_FIRST, AsJson, Verbose
from ingle.cli.output import is_terminal, person_watches
from ingle.cli.progress import Interrupted
from ingle.cli.pulling import has_program
from ingle.cli.spread import spread
from ingle.cli.stages import Stages, Stopwatch
from ingle.cli.usage import NewVmCommand, came_after_dashes, may_be_an_image, refuse_no_command
from ingle.cli.workload import runs_by_itself
from ingle.v1 import vm_pb2
from ingle.v1.guest_pb2 import ExecStart

app = new_app()

Entrypoint = Annotated[
    str | None,
    typer.Option(
        "--entrypoint",
        metavar="PROGRAM",
        help="In the place of the image's entrypoint and command; '' for none.",
    ),
]
MaybeCommandWords = Annotated[list[str], typer.Argument(metavar="[[--] COMMAND [ARG]...]", show_default=False)]


@app.command(
    cls=NewVmCommand,
    context_settings=OPTIONS_FIRST,
    epilog=examples(
        "ingle vm run --rm -- uname -a",
        "ingle vm run --rm -m 2G --vcpu 2 -e CI=true -- sh -c 'make && make test'",
        "tar c src | ingle vm run --rm -- sh -c 'tar x && ls src'",
        "ingle vm run --rm -p 8080:80 -- python3 -m http.server 80",
        "ingle vm run --rm                 # a shell in a VM that goes with it",
        "ingle vm run --name web           # one that stays: ingle vm shell web comes back",
        "ingle vm run -t --rm -- top",
        "ingle vm run --rm --image python:3.12 -- python3 -c 'print(6 * 7)'    # of a registry",
        "ingle vm run -d --image redis -p 6379:6379    # what the image is to run",
        "ingle vm run --rm --image redis --entrypoint redis-cli -- --version",
        "ingle vm run -d --name web        # create it, and leave it running",
        "ingle vm run -d --name job -- sh -c 'make && make test'    # ingle vm logs job has its output",
    ),
)
@spread(VmOptions)
def run(
    ctx: typer.Context,
    command: MaybeCommandWords = [],  # noqa: B006 - Typer copies it
    rm: Annotated[bool, typer.Option("--rm", help="Delete the VM when the command ends, whatever happens.")] = False,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach", "-d", help="Leave the VM running, and print its name; `vm logs` has what a command says."
        ),
    ] = False,
    *,
    options: VmOptions,
    user: User = "",
    workdir: Workdir = "",
    timeout: Timeout = None,
    umask: Umask = None,
    ulimit: Ulimits = [],  # noqa: B006
    stdin: Stdin = None,
    tty: Tty = False,
    wait_output: WaitOutput = False,
    entrypoint: Entrypoint = None,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Run a command in a new VM; without one, what its image is to run or, on a terminal, a shell.

    An image of a registry is run as docker runs it: its entrypoint before the command, its user, directory and
    environment where nothing else is said.

    Exits with the command's exit code, or one of ingle's own: 124 timed out, 125 ingle failed, 126 the command can't be
    executed, 127 it is not there, 130 interrupted."""
    spec = options.spec()
    argv = _argv(entrypoint, command if came_after_dashes(ctx) and command[:1] != ["--"] else guest_argv(command))
    limits = limits_of(ulimit)
    if detach and (rm or tty or stdin or wait_output):
        raise typer.BadParameter(
            "it goes without --rm, --tty, --stdin and --wait-output; nothing was created", param_hint="'--detach'"
        )
    no_terminal = None if detach or (argv and not tty) else _no_terminal(timeout, stdin, wait_output=wait_output)
    if no_terminal is not None and (tty or not spec.image):
        raise no_terminal
    watch = Stopwatch()
    with told_apart_from_the_guest(), connect() as client, Stages(lines=verbose) as stages:
        stages.stage_ended("connect", watch.seconds())
        if argv and may_be_an_image(ctx):
            refuse_no_command(ctx, argv, image_names(client))
        if no_terminal is not None and not has_program(client, spec.image, stages):
            raise no_terminal
        vm_id = _created(client, spec, stages, rm=rm)
        stages.end_live()
        start = exec_start(vm_id, argv, {}, workdir, user, timeout, umask, limits)
        start.with_entrypoint = entrypoint is None
        with told_if_kept(client, vm_id, rm=rm):
            tell_once(client, vm_id)
            if detach and (argv or runs_by_itself(get_vm(client, vm_id).workload)):
                start.detach = start.output_to_console = True
                begin_detached(client, start)
        if detach:
            tell_created(client, vm_id, json=json)
            return
        start.delete_vm, start.wait_output = rm, wait_output
        if tty or not (argv or no_terminal):
            from ingle.cli.commands.vm.on_terminal import in_new_vm  # noqa: PLC0415 - only a terminal needs it

            raise typer.Exit(in_new_vm(client, start))
        start.open_stdin = stdin_wanted(stdin)
        exit_code = _run(client, start, stages)
        stages.stage_ended("in all", watch.seconds())
        if not rm and (verbose or person_watches()):
            tell_kept(get_vm(client, vm_id).name)
    raise typer.Exit(exit_code)


def _argv(entrypoint: str | None, argv: list[str]) -> list[str]:
    """What is to be run, but for what the image says. Raises a usage error when that is nothing, and shall be."""
    if entrypoint is None:
        return argv
    if not (entrypoint or argv):
        raise typer.BadParameter("it leaves nothing to run: name a command", param_hint="'--entrypoint'")
    return [entrypoint, *argv] if entrypoint else argv


def _created(client: Client, spec: vm_pb2.VmSpec, stages: Stages, *, rm: bool) -> str:
    """The id of a new VM. Raises KeyboardInterrupt when it is not wanted any more."""
    try:
        return create_vm(client, spec, stages, ephemeral=rm)
    except Interrupted as interrupted:
        if interrupted.operation.error.message == "":  # it came too late
            with told_if_kept(client, interrupted.operation.target_id, rm=rm):
                if rm:
                    delete_vm(client, interrupted.operation.target_id)
                raise KeyboardInterrupt from interrupted
        raise KeyboardInterrupt from interrupted


def _run(client: Client, start: ExecStart, stages: Stages) -> int:
    """The command's exit code."""
    try:
        with told_if_kept(client, start.vm, rm=start.delete_vm):
            return run_command(client, start, stages)
    except CliError as error:
        if start.delete_vm and error.failures[0].reason == SERVER_UNREACHABLE:
            raise CliError(*error.failures, *delete_by_another_server(start.vm)) from error
        raise


def _no_terminal(timeout: timedelta | None, stdin: bool | None, *, wait_output: bool) -> typer.BadParameter | None:
    """Why this terminal can't be the guest's, to be raised before anything is created; None: it can."""
    if not is_terminal(sys.stdin) or not is_terminal(sys.stdout):
        return typer.BadParameter(
            "no terminal on stdin and stdout for it: give a command without --tty, or --detach",
            param_hint="COMMAND",
        )
    if timeout is not None or stdin is False or wait_output:
        return typer.BadParameter(
            "on a terminal there is no --timeout, --no-stdin or --wait-output", param_hint="COMMAND"
        )
    return None
