"""`ingle quota`: what a user has of what it may have."""

from typing import Annotated

import typer

from ingle.cli.client import connect
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import Column, Filter, Listing, ListOptions
from ingle.cli.output import print_json
from ingle.cli.owners import uid_of
from ingle.cli.quantities import format_size
from ingle.cli.spread import spread
from ingle.v1 import system_pb2

app = new_app()


def _named(name: str) -> str:
    return name.removesuffix("_bytes")


def _text(name: str, value: int) -> str:
    return format_size(value) if name.endswith("_bytes") else str(value)


def _limit(item: system_pb2.QuotaItem) -> str:
    return _text(item.name, item.limit) if item.HasField("limit") else "none"


_ITEMS = Listing(
    message=system_pb2.QuotaItem,
    columns=(
        Column("WHAT", lambda item: _named(item.name)),
        Column("USED", lambda item: _text(item.name, item.used)),
        Column("LIMIT", _limit),
    ),
    name=lambda item: item.name,
    filters={"name": Filter(lambda item: [item.name, _named(item.name)])},
)


@app.command(
    epilog=examples(
        "ingle quota", "ingle quota --filter name=disk --format '{{.used}} of {{.limit}}'", "sudo ingle quota alice"
    )
)
@spread(ListOptions)
def quota(
    options: ListOptions,
    user: Annotated[
        str, typer.Argument(metavar="[USER]", help="Another's, by name or uid: for root and members of ingle-admin.")
    ] = "",
) -> None:
    """What you have of what you may have. Filter: name.

    VMs, their disks and snapshots count as long as they are there; processors, memory and published ports while a VM
    is up."""
    chosen = _ITEMS.chosen(options)
    request = system_pb2.GetQuotaRequest()
    if user:
        uid = uid_of(user)
        if uid is None:
            raise typer.BadParameter(f"there is no user {user!r} here; see getent passwd", param_hint="'USER'")
        request.owner = uid
    with connect() as client:
        told = client.call(request, system_pb2.GetQuotaResponse)
    if chosen.as_json:
        items = list(chosen.wanted_of(told.items))
        print_json(to_json(system_pb2.GetQuotaResponse(owner=told.owner, items=items)))
    else:
        chosen.show(told.items)
