"""`ingle vm fork|restore`: VMs that go on where another one is, or was."""

from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import Client, connect
from ingle.cli.commands.snapshot import get_snapshot, tell_pause, tell_trouble, trouble_of
from ingle.cli.commands.vm.create import get_vm
from ingle.cli.errors import CliError
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, Verbose, VmReference, as_option, parse_forks
from ingle.cli.output import print_json, say
from ingle.cli.progress import follow
from ingle.cli.stages import Stages
from ingle.v1 import vm_pb2

app = new_app()

_Cold = Annotated[bool, typer.Option("--cold", help="Boot from the disk, whatever memory there is.")]


@app.command(
    epilog=examples(
        "ingle vm fork web",
        "ingle vm fork web -n 5 --name 'try-{}'",
        "ingle vm fork before --name again       # of a snapshot",
        "ingle vm fork --cold --snapshot before",
    )
)
def fork(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VM|SNAPSHOT",
            help="Name, id, or a unique prefix of an id.",
            autocompletion=completion.vm_and_snapshot_names,
        ),
    ],
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", parser=as_option(parse_forks), help="How many, 1 to 100.")
    ] = 1,
    name: Annotated[
        str, typer.Option("--name", metavar="PATTERN", help="{} stands for 1, 2, 3…; made up unless given.")
    ] = "",
    snapshot: Annotated[bool, typer.Option("--snapshot", help="A snapshot, also where a VM has that name.")] = False,
    cold: _Cold = False,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Make VMs that go on where a VM is now, or a snapshot was; prints their names.

    Each has a name, an identity and a disk of its own, and publishes no ports. A VM that runs stands still while its
    memory is kept for them, in a snapshot that goes with the last of them."""
    request = vm_pb2.BeginForkVmRequest(count=count, name=name, cold=cold)
    with connect() as client, Stages(lines=verbose) as stages:
        _find(client, source, request, snapshot=snapshot)
        begun = client.call(request, vm_pb2.BeginForkVmResponse)
        follow(client, begun.operation_id, stages)
        forks = [get_vm(client, vm_id) for vm_id in begun.vm_ids]
        pause = _pause(client, forks) if request.vm else 0.0
        trouble = trouble_of(client, request.vm) if pause else ""
    if json:
        print_json([to_json(vm) for vm in forks])
    else:
        for vm in forks:
            say(vm.name)
        tell_pause(source, pause)
    tell_trouble(source, trouble)


def _find(client: Client, source: str, request: vm_pb2.BeginForkVmRequest, *, snapshot: bool) -> None:
    """Say in the request which VM or snapshot it is, by its whole id. Raises CliError."""
    if not snapshot:
        try:
            request.vm = get_vm(client, source).id
        except CliError as error:
            if error.failures[0].reason != "VM_NOT_FOUND":
                raise
            missing = error
        else:
            return
    try:
        request.snapshot = get_snapshot(client, source).id
    except CliError as error:
        if snapshot or error.failures[0].reason != "SNAPSHOT_NOT_FOUND":
            raise
        raise CliError(*missing.failures, *error.failures) from None


def _pause(client: Client, forks: list[vm_pb2.Vm]) -> float:
    """How long the VM stood still."""
    return get_snapshot(client, forks[0].snapshot_id).pause.ToTimedelta().total_seconds()


@app.command(epilog=examples("ingle vm restore web before", "ingle vm restore --cold web before"))
def restore(
    vm: VmReference,
    snapshot: Annotated[
        str,
        typer.Argument(
            metavar="SNAPSHOT", help="Name, id, or a unique prefix of an id.", autocompletion=completion.snapshot_names
        ),
    ],
    cold: _Cold = False,
    json: AsJson = False,
) -> None:
    """Put a VM back to a snapshot of it.

    What its disk has become since is lost. It goes on where it was, if the snapshot has its memory; else it boots, if
    it ran."""
    with connect() as client, Stages(lines=False) as stages:
        request = vm_pb2.RestoreVmRequest(vm=vm, snapshot=snapshot, cold=cold)
        call = client.begin(request, vm_pb2.RestoreVmResponse)
        stages.under_way(f"Putting {vm} back to {snapshot}")
        restored = call.result().vm
    if json:
        print_json(to_json(restored))
    else:
        say(restored.name)
