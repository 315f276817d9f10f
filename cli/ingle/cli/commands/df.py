"""`ingle df`: what all that is kept takes, and what gives how much of it back."""

from collections.abc import Iterable
from typing import Annotated

import typer

from ingle.cli.client import connect
from ingle.cli.jsonable import enum_name, to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import Column, Filter, Listing, ListOptions, enum_numbers
from ingle.cli.output import print_json, say, table, tell
from ingle.cli.quantities import format_size
from ingle.cli.spread import spread
from ingle.v1 import system_pb2

app = new_app()

_KINDS = system_pb2.DiskUseKind.DESCRIPTOR


def _kind(use: system_pb2.DiskUse) -> str:
    return enum_name(_KINDS, use.kind)


_USES = Listing(
    message=system_pb2.DiskUse,
    columns=(
        Column("WHAT", lambda use: _kind(use).replace("_", " ")),
        Column("COUNT", lambda use: str(use.count)),
        Column("SIZE", lambda use: format_size(use.apparent_bytes)),
        Column("ON DISK", lambda use: format_size(use.allocated_bytes)),
        Column("UNUSED", lambda use: format_size(use.reclaimable_bytes) if use.reclaimable_bytes else ""),
        Column("GIVEN BACK BY", lambda use: use.command),
    ),
    name=_kind,
    filters={"kind": Filter(lambda use: [_kind(use)], among=enum_numbers(_KINDS))},
)


@app.command(
    epilog=examples(
        "ingle df",
        "ingle df -v",
        "ingle df --filter kind=images --format '{{.reclaimable_bytes}}'",
        "ingle df --json",
    )
)
@spread(ListOptions)
def df(
    options: ListOptions,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Each VM as well.")] = False,
    all_users: Annotated[
        bool, typer.Option("--all-users", help="Everybody's VMs: for root and members of ingle-admin.")
    ] = False,
) -> None:
    """What VMs, snapshots, images and the rest take of this host's disks, and what can be given back. Filter: kind.

    SIZE is what guests and files seem to have, ON DISK what is really taken. Disks take what their guests
    have written, up to the size that they were made with; together they may be promised more than there is room for."""
    chosen = _USES.chosen(options)
    request = system_pb2.GetDiskUsageRequest(each_vm=verbose or chosen.as_json, all_users=all_users)
    with connect() as client:
        found = client.call(request, system_pb2.GetDiskUsageResponse)
    uses = list(chosen.wanted_of(found.uses))
    if chosen.as_json:
        del found.uses[:]
        found.uses.extend(uses)
        print_json(to_json(found))
    elif options.filter or not chosen.as_table:
        chosen.show(uses)
    else:
        say("\n\n".join(_tables(found, verbose=verbose)))
    if found.incomplete and not chosen.as_json:
        tell("there are more files than are looked at: more is taken than this")


def _tables(found: system_pb2.GetDiskUsageResponse, *, verbose: bool) -> Iterable[str]:
    rows = [[column.cell(use) for column in _USES.columns] for use in found.uses]
    total = sum(use.allocated_bytes for use in found.uses)
    rows.append(["all", "", "", format_size(total), "", ""])
    yield table([column.heading for column in _USES.columns], rows)
    if verbose:
        yield table(
            ("VM", "ID", "DISK", "ON DISK", "OF ITS IMAGE", "MEMORY", "LOGS"),
            (
                (
                    vm.name,
                    vm.vm_id,
                    format_size(vm.disk_bytes),
                    format_size(vm.allocated_bytes),
                    format_size(vm.shared_bytes),
                    format_size(vm.memory_bytes),
                    format_size(vm.logs_bytes),
                )
                for vm in found.vms
            ),
        )
    yield table(
        ("FILE SYSTEM OF", "SIZE", "FREE", "VMS MAY STILL WRITE"),
        (
            (each.path, format_size(each.size_bytes), format_size(each.free_bytes), format_size(each.promised_bytes))
            for each in found.file_systems
        ),
    )
