"""A VM that was made for a command: what is told of one that stays, and the end of one that does not."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ingle.cli.client import Client, connect
from ingle.cli.commands.vm.create import delete_vm, get_vm
from ingle.cli.errors import CliError, Failure
from ingle.cli.jsonable import to_json
from ingle.cli.output import person_watches, print_json, say, tell


def delete_by_another_server(vm_id: str) -> tuple[Failure, ...]:
    """The server that was to delete the VM is gone. The next one knows, but nobody else may start it. Answers what went
    wrong, nothing if the VM is no more."""
    try:
        with connect() as client:
            delete_vm(client, vm_id)
    except CliError as error:
        return tuple(failure for failure in error.failures if failure.reason != "VM_NOT_FOUND")
    return ()


def tell_created(client: Client, vm_id: str, *, json: bool) -> None:
    """The VM that is left running."""
    vm = get_vm(client, vm_id)
    if json:
        print_json(to_json(vm))
        return
    say(vm.name)
    if person_watches():
        tell_kept(vm.name)


@contextmanager
def told_if_kept(client: Client, vm_id: str, *, rm: bool) -> Iterator[None]:
    """Whatever ends the context but its own end, a failure or a signal: who had the VM made hears that it is there."""
    try:
        yield
    except CliError:
        if not rm:
            with suppress(CliError):
                tell_kept(get_vm(client, vm_id).name)
        raise
    except (KeyboardInterrupt, SystemExit):
        if not rm:
            try:
                name = get_vm(client, vm_id).name
            except CliError:  # the signal came amid what the connection was doing, which can't be used since
                name = vm_id
            tell_kept(name)
        raise


def tell_kept(name: str) -> None:
    """What to do with it, for a person."""
    tell(f"{name} is running: ingle vm shell {name} opens a shell in it; ingle vm delete -f {name} ends it")
