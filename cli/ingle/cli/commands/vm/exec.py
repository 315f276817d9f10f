"""`ingle vm exec`: guest commands on this terminal, in a VM that runs."""

from typing import Annotated

import typer

from ingle.cli.client import connect
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
from ingle.cli.exec_session import run_command, stdin_wanted
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import OPTIONS_FIRST, AsJson, Environment, EnvironmentFiles, VmReference, read_environment
from ingle.cli.output import print_json, say
from ingle.cli.stages import Stages
from ingle.v1.guest_pb2 import ExecStart

app = new_app()

CommandWords = Annotated[list[str], typer.Argument(metavar="[--] COMMAND [ARG]...")]
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
        "ingle vm exec --env-file app.env web -- ./serve",
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
    env_file: EnvironmentFiles = [],  # noqa: B006
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
    start = exec_start(vm, guest_argv(command), read_environment(env_file, env), workdir, user, timeout, umask, limits)
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
    start.open_stdin, start.wait_output = stdin_wanted(stdin), wait_output
    with told_apart_from_the_guest(), connect() as client, Stages(lines=False, live=False) as stages:
        exit_code = run_command(client, start, stages)
    raise typer.Exit(exit_code)


def _exec_detached(start: ExecStart, *, json: bool) -> None:
    """Prints the command's pid in the guest and, as JSON, also the op_id that its start has in the server's log."""
    with told_apart_from_the_guest(), connect() as client:
        pid, op_id = begin_detached(client, start)
    if json:
        print_json({"pid": pid, "op_id": op_id})
    else:
        say(str(pid))
