"""`ingle vm run` and `ingle vm exec`: guest commands on this terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import Client, connect, duration
from ingle.cli.commands.vm.create import (
    Accel,
    Backend,
    DiskSize,
    Image,
    Kernel,
    Memory,
    Name,
    Nat,
    Network,
    PidOne,
    SshKeys,
    Vcpus,
    create_vm,
    delete_vm,
    get_vm,
    image_names,
    vm_spec,
)
from ingle.cli.commands.vm.new_vm import delete_by_another_server, tell_created, tell_kept, told_if_kept
from ingle.cli.emulation import tell_once
from ingle.cli.errors import SERVER_UNREACHABLE, CliError, failed, refused_by_the_system
from ingle.cli.exec_session import run_command, stdin_wanted
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import (
    OPTIONS_FIRST,
    AsJson,
    Environment,
    Publish,
    Span,
    Verbose,
    VmReference,
    as_option,
    parse_environment,
)
from ingle.cli.output import is_terminal, person_watches, print_json, say
from ingle.cli.progress import Interrupted, Stages, Stopwatch
from ingle.cli.quantities import parse_umask
from ingle.cli.ulimits import parse_ulimits
from ingle.cli.usage import NewVmCommand, may_be_an_image, refuse_no_command
from ingle.v1.guest_pb2 import ExecRequest, ExecResponse, ExecStart, ResourceLimit

app = new_app()

CommandWords = Annotated[list[str], typer.Argument(metavar="[--] COMMAND [ARG]...")]
MaybeCommandWords = Annotated[list[str], typer.Argument(metavar="[[--] COMMAND [ARG]...]", show_default=False)]
User = Annotated[
    str,
    typer.Option(
        "--user",
        "-u",
        metavar="USER[:GROUP]",
        help="Names or numbers in the guest; root unless given, and all its groups.",
        autocompletion=completion.guest_users,
    ),
]
Workdir = Annotated[
    str, typer.Option("--workdir", "-w", metavar="DIR", help="Directory in the guest; the user's home unless given.")
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
        "ingle vm run -d --name web        # create it, and leave it running",
        "ingle vm run -d --name job -- sh -c 'make && make test'    # ingle vm logs job has its output",
    ),
)
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
    name: Name = "",
    image: Image = "",
    kernel: Kernel = "",
    vcpu: Vcpus = None,
    memory: Memory = None,
    disk_size: DiskSize = None,
    env: Environment = [],  # noqa: B006
    accel: Accel = None,
    disk_backend: Backend = None,
    publish: Publish = [],  # noqa: B006
    network: Network = "",
    nat: Nat = False,
    init: PidOne = None,
    ssh_key: SshKeys = [],  # noqa: B006
    user: User = "",
    workdir: Workdir = "",
    timeout: Timeout = None,
    umask: Umask = None,
    ulimit: Ulimits = [],  # noqa: B006
    stdin: Stdin = None,
    tty: Tty = False,
    wait_output: WaitOutput = False,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Run a command in a new VM; without one, on a terminal, a shell.

    Exits with the command's exit code, or one of ingle's own: 124 timed out, 125 ingle failed, 126 the command can't be
    executed, 127 it is not there, 130 interrupted."""
    spec = vm_spec(
        *(name, image, kernel, vcpu, memory, disk_size, env, accel, disk_backend, publish, network, nat, init, ssh_key)
    )
    argv = guest_argv(command)
    limits = limits_of(ulimit)
    if detach and (rm or tty or stdin or wait_output):
        raise typer.BadParameter(
            "it goes without --rm, --tty, --stdin and --wait-output; nothing was created", param_hint="'--detach'"
        )
    if not detach and (tty or not argv):
        _check_terminal(timeout, stdin, wait_output=wait_output)
    watch = Stopwatch()
    with told_apart_from_the_guest(), connect() as client, Stages(lines=verbose) as stages:
        stages.stage_ended("connect", watch.seconds())
        if argv and may_be_an_image(ctx):
            refuse_no_command(ctx, argv, image_names(client))
        try:
            vm_id = create_vm(client, spec, stages, ephemeral=rm)
        except Interrupted as interrupted:
            if interrupted.operation.error.message == "":  # it came too late
                with told_if_kept(client, interrupted.operation.target_id, rm=rm):
                    if rm:
                        delete_vm(client, interrupted.operation.target_id)
                    raise KeyboardInterrupt from interrupted
            raise KeyboardInterrupt from interrupted
        stages.end_live()
        start = exec_start(vm_id, argv, {}, workdir, user, timeout, umask, limits)
        with told_if_kept(client, vm_id, rm=rm):
            tell_once(client, vm_id)
            if detach and argv:
                start.detach = start.output_to_console = True
                _begin_detached(client, start)
        if detach:
            tell_created(client, vm_id, json=json)
            return
        start.delete_vm, start.wait_output = rm, wait_output
        if tty or not argv:
            from ingle.cli.commands.vm.on_terminal import in_new_vm  # noqa: PLC0415 - only a terminal needs it

            raise typer.Exit(in_new_vm(client, start))
        start.stdin = stdin_wanted(stdin)
        try:
            with told_if_kept(client, vm_id, rm=rm):
                exit_code = run_command(client, start, stages)
        except CliError as error:
            if rm and error.failures[0].reason == SERVER_UNREACHABLE:
                raise CliError(*error.failures, *delete_by_another_server(vm_id)) from error
            raise
        stages.stage_ended("in all", watch.seconds())
        if not rm and (verbose or person_watches()):
            tell_kept(get_vm(client, vm_id).name)
    raise typer.Exit(exit_code)


def _check_terminal(timeout: timedelta | None, stdin: bool | None, *, wait_output: bool) -> None:
    """Raises a usage error; nothing has been created by then."""
    if not is_terminal(sys.stdin) or not is_terminal(sys.stdout):
        raise typer.BadParameter(
            "no terminal on stdin and stdout for it: give a command without --tty, or --detach",
            param_hint="COMMAND",
        )
    if timeout is not None or stdin is False or wait_output:
        raise typer.BadParameter(
            "on a terminal there is no --timeout, --no-stdin or --wait-output", param_hint="COMMAND"
        )


Detach = Annotated[
    bool,
    typer.Option("--detach", "-d", help="Print its pid, and let it run without input and with its output thrown away."),
]


@app.command(
    name="exec",
    context_settings=OPTIONS_FIRST,
    epilog=examples(
        "ingle vm exec web -- ps aux",
        "ingle vm exec -u www-data -w /srv -e DEBUG=1 web -- ./serve --port 80",
        "ingle vm exec --timeout 30s web -- apt-get update",
        "ingle vm exec web -- tar c /var/log | tar x",
        "ingle vm exec -t web -- top",
        "ingle vm exec -d web -- sh -c 'exec ./serve >/var/log/serve.log 2>&1'",
        "ingle vm exec -u www-data:adm --umask 027 --ulimit nofile=1024:4096 web -- ./serve",
    ),
)
def exec_in_vm(
    vm: VmReference,
    command: CommandWords,
    env: Environment = [],  # noqa: B006
    user: User = "",
    workdir: Workdir = "",
    timeout: Timeout = None,
    umask: Umask = None,
    ulimit: Ulimits = [],  # noqa: B006
    stdin: Stdin = None,
    wait_output: WaitOutput = False,
    detach: Detach = False,
    tty: Tty = False,
    json: AsJson = False,
) -> None:
    """Run a command in a running VM.

    Exits with the command's exit code, or one of ingle's own: 124 timed out, 125 ingle failed, 126 the command can't be
    executed, 127 it is not there, 130 interrupted. With --detach that of starting it: only its --timeout, or a signal
    from within the VM, ends it then."""
    limits = limits_of(ulimit)
    start = exec_start(vm, guest_argv(command), parse_environment(env), workdir, user, timeout, umask, limits)
    if detach:
        if tty or stdin or wait_output:
            raise typer.BadParameter("it goes without --tty, --stdin and --wait-output", param_hint="'--detach'")
        start.detach = True
        _exec_detached(start, json=json)
        return
    if tty:
        if timeout is not None or stdin is False or wait_output:
            raise typer.BadParameter("it goes without --timeout, --no-stdin and --wait-output", param_hint="'--tty'")
        from ingle.cli.commands.vm.on_terminal import in_vm  # noqa: PLC0415 - only a terminal needs it

        with told_apart_from_the_guest(), connect() as client:
            raise typer.Exit(in_vm(client, start))
    start.stdin, start.wait_output = stdin_wanted(stdin), wait_output
    with told_apart_from_the_guest(), connect() as client, Stages(lines=False, live=False) as stages:
        exit_code = run_command(client, start, stages)
    raise typer.Exit(exit_code)


def _exec_detached(start: ExecStart, *, json: bool) -> None:
    """Prints the command's pid in the guest and, as JSON, also the op_id that its start has in the server's log."""
    with told_apart_from_the_guest(), connect() as client:
        pid, op_id = _begin_detached(client, start)
    if json:
        print_json({"pid": pid, "op_id": op_id})
    else:
        say(str(pid))


def _begin_detached(client: Client, start: ExecStart) -> tuple[int, str]:
    call = client.begin(ExecRequest(start=start), ExecResponse)
    pids = [response.started.pid for response in call if response.HasField("started")]
    if not pids or call.raw.status is None:
        raise failed("GUEST_PROTOCOL", "the call ended without the command's pid")
    return pids[0], call.raw.status.op_id


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
