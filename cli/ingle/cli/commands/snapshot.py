"""`ingle snapshot`: VMs as they were."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC
from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import Client, connect
from ingle.cli.commands.vm.vm_options import parse_labels
from ingle.cli.errors import CliError
from ingle.cli.jsonable import enum_name, shape_of, to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import AllUsers, Column, Filter, Format, Formatted, Listing, ListOptions, formatted_one
from ingle.cli.many import change_each
from ingle.cli.options import AsJson, Verbose, VmReference
from ingle.cli.output import NAMELESS, fields, print_json, say, tell
from ingle.cli.owners import another, called, user_name
from ingle.cli.printable import one_line
from ingle.cli.progress import Interrupted, follow
from ingle.cli.quantities import format_age, format_seconds, format_size
from ingle.cli.receiving import file_or_stdout
from ingle.cli.spread import spread
from ingle.cli.stages import Stages
from ingle.cli.uploads import Upload
from ingle.v1 import snapshot_pb2, vm_pb2

app = new_app(
    "VMs as they were: their disks, and the memory of those that ran.",
    first=(
        "ingle snapshot create web before",
        "ingle vm fork before -n 5 --name 'try-{}'",
        "ingle vm restore web before",
    ),
)

_MOST_TOLD = 5
STDIN = "-"
_PIECE = 256 * 1024

_STATES = snapshot_pb2.SnapshotState.DESCRIPTOR

Reference = Annotated[
    str,
    typer.Argument(
        metavar="SNAPSHOT", help="Name, id, or a unique prefix of an id.", autocompletion=completion.snapshot_names
    ),
]
References = Annotated[
    list[str],
    typer.Argument(
        metavar="SNAPSHOT...", help="Names, ids, or unique id prefixes.", autocompletion=completion.snapshot_names
    ),
]


def _content(snapshot: snapshot_pb2.Snapshot) -> str:
    if snapshot.state == snapshot_pb2.SNAPSHOT_STATE_CREATING:
        return enum_name(_STATES, snapshot.state)
    return "memory, disk" if snapshot.memory else "disk"


_SNAPSHOTS = Listing(
    message=snapshot_pb2.Snapshot,
    columns=(
        Column("NAME", lambda snapshot: snapshot.name or NAMELESS),
        Column("ID", lambda snapshot: snapshot.id),
        Column("OF", lambda snapshot: snapshot.vm_name),
        Column("WITH", _content),
        Column("PARENT", lambda snapshot: snapshot.parent_id),
        Column("ON DISK", lambda snapshot: format_size(snapshot.size_bytes)),
        Column("USED BY", lambda snapshot: str(len(snapshot.used_by) or "")),
        Column("AGE", lambda snapshot: format_age(snapshot.created_at.ToDatetime(UTC))),
    ),
    name=lambda snapshot: snapshot.name or snapshot.id,
    filters={
        "name": Filter(lambda snapshot: [snapshot.name]),
        "vm": Filter(lambda snapshot: [snapshot.vm_name, snapshot.vm_id]),
        "label": Filter(ask="labels"),
    },
)


def _parent(snapshot: snapshot_pb2.Snapshot) -> str:
    """Without which it is of no use."""
    more = snapshot.depth - 1
    return snapshot.parent_id + (f"  and {more} more" if more > 0 else "")


def get_snapshot(client: Client, reference: str) -> snapshot_pb2.Snapshot:
    """The snapshot that the reference stands for."""
    request = snapshot_pb2.GetSnapshotRequest(snapshot=reference)
    return client.call(request, snapshot_pb2.GetSnapshotResponse).snapshot


@app.command(
    epilog=examples(
        "ingle snapshot create web",
        "ingle snapshot create web before-upgrade -l keep=yes",
        "ingle snapshot create web --disk     # what is made of it boots",
        "ingle snapshot create web --full     # which needs no other snapshot",
    )
)
def create(
    vm: VmReference,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Made up unless given.")] = "",
    disk: Annotated[bool, typer.Option("--disk", help="The disk alone, also of a VM that runs.")] = False,
    parent: Annotated[
        str,
        typer.Option(
            "--parent",
            metavar="SNAPSHOT",
            help="Keep what this one has not. Unless given: of the VM's newest one, if that saves room.",
            autocompletion=completion.snapshot_names,
        ),
    ] = "",
    full: Annotated[bool, typer.Option("--full", help="Keep all of it, so that it needs no other snapshot.")] = False,
    label: Annotated[
        list[str],
        typer.Option("--label", "-l", metavar="KEY[=VALUE]", help="Write it on the snapshot (repeatable)."),
    ] = [],  # noqa: B006 - Typer copies it
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Keep a VM as it is now; prints the snapshot's name.

    Of one that runs the memory as well: it stands still while that is written. What the guest knows is in there, keys
    and passwords too; the files are the server's alone to read, and the snapshot is yours.

    What an earlier snapshot of the VM has is not kept again. That one may be deleted all the same: it loses its name,
    and goes when no other needs it. What starts of a snapshot takes the longer the more it needs, 8 at most;
    `ingle snapshot flatten` makes one that needs none."""
    request = snapshot_pb2.BeginCreateSnapshotRequest(
        vm=vm, name=name, disk_only=disk, parent=parent, full=full, labels=parse_labels(label)
    )
    with connect() as client, Stages(lines=verbose) as stages:
        begun = client.call(request, snapshot_pb2.BeginCreateSnapshotResponse)
        with _told_if_too_late():
            operation = follow(client, begun.operation_id, stages)
        snapshot = get_snapshot(client, operation.target_id)
        trouble = trouble_of(client, snapshot.vm_id)
    if json:
        print_json(to_json(snapshot))
    else:
        say(snapshot.name)
        tell_pause(snapshot.vm_name, snapshot.pause.ToTimedelta().total_seconds())
    tell_trouble(snapshot.vm_name, trouble)


@contextmanager
def _told_if_too_late() -> Iterator[None]:
    try:
        yield
    except Interrupted as interrupted:
        if not interrupted.operation.error.message:
            tell(f"ingle: too late to cancel: it is there: ingle snapshot show {interrupted.operation.target_id}")
        raise


def tell_pause(vm: str, seconds: float) -> None:
    """How long that guest stood still, if it did."""
    if seconds:
        tell(f"{vm} stood still for {format_seconds(seconds)}")


def trouble_of(client: Client, vm_id: str) -> str:
    """What is wrong with a VM since it was to go on; empty where nothing is, or the VM is gone."""
    try:
        return client.call(vm_pb2.GetVmRequest(vm=vm_id), vm_pb2.GetVmResponse).vm.sleep_error
    except CliError:
        return ""


def tell_trouble(vm: str, trouble: str) -> None:
    """That the VM may be of no use as it is, and what leads on."""
    if trouble:
        tell(one_line(f"{vm}: {trouble}"))


@app.command(
    name="list",
    epilog=examples(
        "ingle snapshot list",
        "ingle snapshot list --filter vm=web --filter label=keep",
        "ingle snapshot list --format '{{.name}} {{.size_bytes}}'",
    ),
)
@spread(ListOptions)
def list_snapshots(options: ListOptions, all_users: AllUsers = False) -> None:
    """Your snapshots, oldest first.

    Filters: name, vm (its name then, or its id), label (KEY or KEY=VALUE).

    Alias: ls."""
    listing = _SNAPSHOTS
    if all_users:
        owner = Column[snapshot_pb2.Snapshot]("OWNER", lambda snapshot: user_name(snapshot.owner))
        listing = replace(
            listing,
            columns=(owner, *listing.columns),
            name=lambda snapshot: called(snapshot.owner, snapshot.name) if snapshot.name else snapshot.id,
        )
    chosen = listing.chosen(options)
    with connect() as client:
        request = chosen.asking(snapshot_pb2.ListSnapshotsRequest(all_users=all_users))
        snapshots = client.all(request, snapshot_pb2.ListSnapshotsResponse).snapshots
    chosen.show(snapshots)


@app.command(epilog=examples("ingle snapshot show before", "ingle snapshot show --format '{{json .used_by}}' before"))
def show(snapshot: Reference, format_: Format = "", json: AsJson = False) -> None:
    """Everything about one snapshot."""
    formatted = formatted_one(format_, lambda: shape_of(snapshot_pb2.Snapshot.DESCRIPTOR), json=json)
    with connect() as client:
        found = get_snapshot(client, snapshot)
    if formatted is not None:
        formatted.show_one(to_json(found))
        return
    pause = found.pause.ToTimedelta().total_seconds()
    say(
        fields(
            (
                ("name", found.name),
                ("id", found.id),
                ("owner", another(found.owner)),
                ("of", f"{found.vm_name}  {found.vm_id}"),
                ("with", _content(found)),
                ("parent", _parent(found)),
                ("used by", " ".join(found.used_by)),
                ("labels", ", ".join(f"{key}={value}".rstrip("=") for key, value in sorted(found.labels.items()))),
                ("image", f"{found.image_name}  {found.image_id[:12]}"),
                ("kernel", f"{found.kernel_name}  {found.kernel_id[:12]}"),
                ("engine", found.engine),
                ("vcpus", str(found.vcpus)),
                ("memory", format_size(found.memory_bytes)),
                ("disk", f"{format_size(found.disk_bytes)}  {found.disk_backend}"),
                ("on disk", format_size(found.size_bytes)),
                ("stood still", format_seconds(pause) if pause else ""),
                ("created", f"{found.created_at.ToDatetime(UTC):%F %T} UTC"),
            )
        )
    )


@app.command(epilog=examples("ingle snapshot inspect before", "ingle snapshot inspect --format '{{.id}}' before after"))
def inspect(snapshots: References, format_: Format = "", json: AsJson = False) -> None:
    """Everything about snapshots, as a list in JSON."""
    formatted = Formatted("json" if json else format_ or "json", lambda: shape_of(snapshot_pb2.Snapshot.DESCRIPTOR))
    with connect() as client:
        formatted.show_each(snapshots, lambda reference: to_json(get_snapshot(client, reference)))


@app.command(
    epilog=examples(
        "ingle snapshot export before before.ingle",
        "ingle snapshot export before - | ingle snapshot import - again     # there, through ssh",
    )
)
def export(
    snapshot: Reference,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What to make, for you alone to read; -: stdout.")],
) -> None:
    """Write a snapshot to one file, which `ingle snapshot import` takes elsewhere.

    What the guest knew is in there, keys and passwords too, and it is not encrypted."""
    with connect() as client, file_or_stdout(file) as take, Stages(lines=False) as stages:
        stages.under_way(f"Exporting {snapshot}")
        request = snapshot_pb2.ExportSnapshotRequest(snapshot=snapshot)
        for response in client.begin(request, snapshot_pb2.ExportSnapshotResponse):
            take(response.data)


@app.command(
    name="import",
    epilog=examples("ingle snapshot import before.ingle again", "ingle snapshot import --json before.ingle of-monday"),
)
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `ingle snapshot export` made; -: stdin.")],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="As it was called unless given.")] = "",
    json: AsJson = False,
) -> None:
    """Take a snapshot that was exported; prints its name.

    Its image and kernel must be here; for its memory the same version of the engine, and the same processor. Take it of
    those alone whom you trust: its memory goes to the VMM as it is."""
    from ingle.cli.sending import opened, sent  # noqa: PLC0415 - tarfile is slow

    def send(upload: Upload[snapshot_pb2.ImportSnapshotResponse]) -> None:
        stages.under_way(f"Sending {file}")
        while piece := os.read(descriptor, _PIECE):
            upload.write(piece)

    request = snapshot_pb2.ImportSnapshotRequest(start=snapshot_pb2.ImportSnapshotStart(name=name))
    with opened(file) as descriptor, connect() as client, Stages(lines=False) as stages:
        call = client.begin(request, snapshot_pb2.ImportSnapshotResponse, last=False)
        upload = Upload(client, call, snapshot_pb2.ImportSnapshotRequest)
        taken = sent(upload, send, f"Unpacking {file}", stages).snapshot
    if json:
        print_json(to_json(taken))
    else:
        say(taken.name)


@app.command(epilog=examples("ingle snapshot flatten before", "ingle snapshot flatten --json before"))
def flatten(snapshot: Reference, verbose: Verbose = False, json: AsJson = False) -> None:
    """Make of a snapshot one that needs no other; prints its name.

    It takes more room then, and what it needed may go. What is made of it is the same as before."""
    with connect() as client, Stages(lines=verbose) as stages:
        stages.under_way(f"Flattening {snapshot}")
        request = snapshot_pb2.FlattenSnapshotRequest(snapshot=get_snapshot(client, snapshot).id)
        flat = client.call(request, snapshot_pb2.FlattenSnapshotResponse).snapshot
    if json:
        print_json(to_json(flat))
    else:
        say(flat.name or flat.id)


@app.command(epilog=examples("ingle snapshot delete before", "ingle snapshot rm $(ingle snapshot list -q)"))
def delete(snapshots: References, json: AsJson = False) -> None:
    """Delete snapshots; tells what that has freed.

    One that VMs or other snapshots need loses its name at once, and goes with the last of them.

    Alias: rm."""
    with connect() as client:
        change_each(
            snapshots,
            lambda reference: client.begin(
                snapshot_pb2.GetSnapshotRequest(snapshot=reference), snapshot_pb2.GetSnapshotResponse
            ),
            lambda found: found.snapshot.id,
            lambda snapshot_id: client.begin(
                snapshot_pb2.DeleteSnapshotRequest(snapshot=snapshot_id), snapshot_pb2.DeleteSnapshotResponse
            ),
            "Deleting",
            json=json,
            note=_what_keeps_it,
        )


def _what_keeps_it(deleted: snapshot_pb2.DeleteSnapshotResponse) -> str:
    if not deleted.used_by:
        return f"{format_size(deleted.freed_bytes)} of the disk are free again"
    told, more = deleted.used_by[:_MOST_TOLD], len(deleted.used_by) - _MOST_TOLD
    users = ", ".join(told) + (f" and {more} more" if more > 0 else "")
    rest = "rests" if len(deleted.used_by) == 1 else "rest"
    return f"it has no name any more, and is gone once {users} {rest} on it no more"
