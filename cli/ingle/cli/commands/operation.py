"""`ingle operation`: changes under way and done."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC
from itertools import chain, islice
from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import Client, connect
from ingle.cli.jsonable import enum_name, to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import AllUsers, Column, Filter, Listing, ListOptions, enum_numbers
from ingle.cli.options import AsJson, Count
from ingle.cli.output import fields, print_json, say, table
from ingle.cli.owners import called, user_name
from ingle.cli.paging import pages
from ingle.cli.progress import raise_if_failed
from ingle.cli.quantities import format_age, format_seconds
from ingle.cli.spread import spread
from ingle.cli.stages import Stages
from ingle.v1 import image_pb2, kernel_pb2, operation_pb2, snapshot_pb2, vm_pb2

app = new_app(
    "Changes under way and done.",
    first=(
        "ingle operation list",
        "ingle operation list --filter state=running",
        "ingle operation show op-0123456789ab",
    ),
)

_KINDS = operation_pb2.OperationKind.DESCRIPTOR
_STATES = operation_pb2.OperationState.DESCRIPTOR

Reference = Annotated[
    str, typer.Argument(metavar="OPERATION", help="Its id, op-…", autocompletion=completion.operation_ids)
]


def _listing(names: Mapping[str, str]) -> Listing[operation_pb2.Operation]:
    """`names`: of what operations have changed, by id."""

    def kind(operation: operation_pb2.Operation) -> str:
        return enum_name(_KINDS, operation.kind)

    def state(operation: operation_pb2.Operation) -> str:
        return enum_name(_STATES, operation.state)

    def target(operation: operation_pb2.Operation) -> str:
        return names.get(operation.target_id, operation.target_id)

    return Listing(
        message=operation_pb2.Operation,
        columns=(
            Column("ID", lambda operation: operation.id),
            Column("KIND", kind),
            Column("STATE", state),
            Column("TARGET", lambda operation: names.get(operation.target_id, operation.target_id[:12])),
            Column("TOOK", _took),
            Column("AGE", lambda operation: format_age(operation.created_at.ToDatetime(UTC))),
        ),
        name=lambda operation: operation.id,
        filters={
            "kind": Filter(lambda operation: [kind(operation)], among=enum_numbers(_KINDS)),
            "state": Filter(lambda operation: [state(operation)], among=enum_numbers(_STATES)),
            "target": Filter(lambda operation: [operation.target_id, target(operation)]),
        },
    )


@app.command(
    name="list",
    epilog=examples(
        "ingle operation list",
        "ingle operation list --limit 5 --json",
        "ingle operation list --filter state=failed --filter target=web",
    ),
)
@spread(ListOptions)
def list_operations(
    options: ListOptions,
    limit: Annotated[int, typer.Option("--limit", metavar="N", parser=Count, help="At most so many.")] = 20,
    all_users: AllUsers = False,
) -> None:
    """Your operations, newest first.

    Filters: state, kind, target (what it changed, by its name or id). Of those that are filtered out none counts.

    Alias: ls."""
    names: dict[str, str] = {}
    listing = _listing(names)
    if all_users:
        owner = Column[operation_pb2.Operation]("OWNER", lambda operation: user_name(operation.owner))
        listing = replace(listing, columns=(owner, *listing.columns))
    chosen = listing.chosen(options)
    with connect() as client:
        size = 0 if options.filter else limit
        request = operation_pb2.ListOperationsRequest(page_size=size, all_users=all_users)
        operations: Iterable[operation_pb2.Operation]
        operations = chain.from_iterable(
            page.operations for page in pages(client, request, operation_pb2.ListOperationsResponse)
        )
        if "target" in chosen.wanted or chosen.as_table:
            names |= _names(client, all_users=all_users)
        chosen.show(islice(chosen.wanted_of(operations), limit))


@app.command(epilog=examples("ingle operation show op-0123456789ab"))
def show(operation: Reference, json: AsJson = False) -> None:
    """One operation and its stages."""
    with connect() as client:
        request = operation_pb2.GetOperationRequest(operation_id=operation)
        _tell(client, client.call(request, operation_pb2.GetOperationResponse).operation, json=json)


@app.command(epilog=examples("ingle operation cancel op-0123456789ab"))
def cancel(operation: Reference, json: AsJson = False) -> None:
    """Cancel, and wait until everything done so far is undone.

    One that has ended stays as it is."""
    with connect() as client, Stages(lines=False) as stages:
        request = operation_pb2.CancelOperationRequest(operation_id=operation)
        call = client.begin(request, operation_pb2.CancelOperationResponse)
        stages.under_way(f"Cancelling {operation}")
        cancelled = call.result().operation
        stages.end_live()
        _tell(client, cancelled, json=json)


@app.command(epilog=examples("ingle operation watch op-0123456789ab"))
def watch(operation: Reference, json: AsJson = False) -> None:
    """Show the stages until it ends; leaving does not disturb it.

    Exit code 1 when it failed."""
    with connect() as client, Stages(lines=not json) as stages:
        last = _last_state(client, operation, stages)
    if json:
        print_json(to_json(last))
    raise_if_failed(last)


def _last_state(client: Client, operation_id: str, stages: Stages) -> operation_pb2.Operation:
    last = operation_pb2.Operation()
    request = operation_pb2.WatchOperationRequest(operation_id=operation_id)
    for response in client.begin(request, operation_pb2.WatchOperationResponse):
        last = response.operation
        stages.update(last)
    return last


def _names(client: Client, *, all_users: bool) -> dict[str, str]:
    """What those things are called that operations have changed, and that are there: by id."""
    vms = client.all(vm_pb2.ListVmsRequest(all_users=all_users), vm_pb2.ListVmsResponse).vms
    images = client.all(image_pb2.ListImagesRequest(), image_pb2.ListImagesResponse).images
    kernels = client.all(kernel_pb2.ListKernelsRequest(), kernel_pb2.ListKernelsResponse).kernels
    request = snapshot_pb2.ListSnapshotsRequest(all_users=all_users)
    snapshots = client.all(request, snapshot_pb2.ListSnapshotsResponse).snapshots
    return {
        **{snapshot.id: called(snapshot.owner, snapshot.name) for snapshot in snapshots if snapshot.name},
        **{image.id: image.names[0] for image in images if image.names},
        **{kernel.id: kernel.names[0] for kernel in kernels if kernel.names},
        **{vm.id: called(vm.owner, vm.name) for vm in vms},
    }


def _tell(client: Client, operation: operation_pb2.Operation, *, json: bool) -> None:
    if json:
        print_json(to_json(operation))
        return
    name = _names(client, all_users=False).get(operation.target_id, "")
    error = operation.error
    say(
        fields(
            (
                ("id", operation.id),
                ("kind", enum_name(_KINDS, operation.kind)),
                ("state", enum_name(_STATES, operation.state)),
                ("target", f"{name}  {operation.target_id}".strip()),
                ("began", f"{operation.created_at.ToDatetime(UTC):%F %T} UTC"),
                ("took", _took(operation)),
                ("error", error.message),
                ("remedy", error.remedy),
            )
        )
    )
    if operation.stages:
        rows = ((stage.name, _took(stage), stage.text) for stage in operation.stages)
        say("\n" + table(("STAGE", "TOOK", "WHAT IT DOES"), rows))


def _took(item: operation_pb2.Operation | operation_pb2.Stage) -> str:
    """How long it lasted; empty while it is under way."""
    if not item.HasField("finished_at"):
        return ""
    began = item.created_at if isinstance(item, operation_pb2.Operation) else item.started_at
    return format_seconds((item.finished_at.ToNanoseconds() - began.ToNanoseconds()) / 1e9)
