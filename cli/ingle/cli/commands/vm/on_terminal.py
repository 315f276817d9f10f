"""A guest command, or a shell, on this terminal: sessions that end with us, and the one that doesn't."""

from ingle.cli import tty
from ingle.cli.attachment import attach
from ingle.cli.client import Client
from ingle.cli.commands.vm.create import get_vm
from ingle.cli.commands.vm.new_vm import delete_by_another_server, tell_kept
from ingle.cli.errors import CliError, Failure
from ingle.cli.workload import runs_by_itself
from ingle.v1.guest_pb2 import AttachSessionStart, ExecStart, SessionProgram


def in_new_vm(client: Client, start: ExecStart) -> int:
    """A command, or the shell that `ingle vm shell` comes back to where the VM stays. Answers the exit code."""
    if start.delete_vm:
        return _with_its_vm(client, start)
    vm = get_vm(client, start.vm)
    name = vm.name
    try:
        if start.argv or runs_by_itself(vm.workload):
            return in_vm(client, start)
        session_id = f"init-{start.user}" if start.user else "init"
        attachment = AttachSessionStart(vm=start.vm, session_id=session_id, create=_program(start))
        return attach(client, attachment, tty.parse_keys(tty.DEFAULT_DETACH_KEYS), f"ingle vm shell {name}")
    finally:
        tell_kept(name)


def in_vm(client: Client, start: ExecStart) -> int:
    """A session that ends with us, so that there is nothing to detach from. Answers the exit code."""
    attachment = AttachSessionStart(vm=start.vm, create=_program(start))
    attachment.create.end_with_viewer = True
    return attach(client, attachment, b"", f"ingle vm session attach {start.vm} {{id}}")


def _with_its_vm(client: Client, start: ExecStart) -> int:
    failures: tuple[Failure, ...] = ()
    try:
        return in_vm(client, start)
    except CliError as error:
        failures = error.failures
        raise
    finally:
        # Over another connection: this one may be lost, and its server with it.
        if problems := delete_by_another_server(start.vm):
            raise CliError(*failures, *problems)


def _program(start: ExecStart) -> SessionProgram:
    """The same command, or a shell when there is none, for a session."""
    return SessionProgram(
        argv=start.argv,
        env={**tty.term(), **start.env},
        working_directory=start.working_directory,
        user=start.user,
        umask=start.umask if start.HasField("umask") else None,
        limits=start.limits,
        with_entrypoint=start.with_entrypoint,
    )
