"""`ingle vm session`: terminals in VMs that outlive whoever looks at them."""

from datetime import UTC
from typing import Annotated

import typer

from ingle.cli import completion, tty
from ingle.cli.attachment import attach
from ingle.cli.client import connect
from ingle.cli.commands.vm.guest_command import told_apart_from_the_guest
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import Column, Filter, Listing, ListOptions
from ingle.cli.options import AsJson, VmReference, as_option
from ingle.cli.output import print_json, say
from ingle.cli.quantities import format_age, format_seconds
from ingle.cli.spread import spread
from ingle.v1 import guest_pb2

app = new_app(
    "Terminals in VMs, which outlive whoever looks at them.",
    first=("ingle vm session list web", "ingle vm session attach web init", "ingle vm session kill web init"),
)

SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Its id.", autocompletion=completion.session_ids)]
Steal = Annotated[bool, typer.Option("--steal", help="Take it over from whoever is attached.")]
Keys = Annotated[
    bytes,
    typer.Option(
        "--detach-keys",
        metavar="KEYS",
        parser=as_option(tty.parse_keys),
        help="What leaves the session running, e.g. ctrl-a,d; empty for nothing.",
        show_default=True,
    ),
]


_SESSIONS = Listing(
    message=guest_pb2.Session,
    columns=(
        Column("SESSION", lambda session: session.id),
        Column("ATTACHED", lambda session: "yes" if session.attached else "no"),
        Column("SIZE", lambda session: f"{session.size.columns}x{session.size.rows}"),
        Column("IDLE", lambda session: format_seconds(session.idle.ToTimedelta().total_seconds())),
        Column("AGE", lambda session: format_age(session.started_at.ToDatetime(UTC))),
        Column("COMMAND", lambda session: " ".join(session.argv)),
    ),
    name=lambda session: session.id,
    filters={"attached": Filter(lambda session: ["yes" if session.attached else "no"], among={"yes": 1, "no": 0})},
)


@app.command(
    name="list",
    epilog=examples("ingle vm session list web", "ingle vm session list --filter attached=no -q web"),
)
@spread(ListOptions)
def list_sessions(vm: VmReference, options: ListOptions) -> None:
    """The sessions of a VM, oldest first.

    Filter: attached (yes or no).

    Alias: ls."""
    chosen = _SESSIONS.chosen(options)
    with connect() as client:
        request = guest_pb2.ListSessionsRequest(vm=vm)
        told = client.all(request, guest_pb2.ListSessionsResponse).sessions
    chosen.show(sorted(told, key=lambda session: session.started_at.ToNanoseconds()))


@app.command(
    name="attach",
    epilog=examples(
        "ingle vm session attach web init", "ingle vm session attach --steal --detach-keys ctrl-a,d web s-1"
    ),
)
def attach_session(
    vm: VmReference,
    session: SessionId,
    steal: Steal = False,
    detach_keys: Keys = tty.DEFAULT_DETACH_KEYS,  # type: ignore[assignment] # a default is parsed as well
) -> None:
    """Show a session here: what it said last, then what it says.

    Exits with the command's exit code when that ends, 0 when left with Ctrl-P Ctrl-Q, and 125 when ingle fails."""
    with told_apart_from_the_guest(), connect() as client:
        start = guest_pb2.AttachSessionStart(vm=vm, session_id=session, steal=steal)
        exit_code = attach(client, start, detach_keys, f"ingle vm session attach {vm} {{id}}")
    raise typer.Exit(exit_code)


@app.command(name="kill", epilog=examples("ingle vm session kill web init"))
def kill_session(vm: VmReference, session: SessionId, json: AsJson = False) -> None:
    """End a session and everything in it: SIGHUP, and SIGKILL a second later."""
    with connect() as client:
        answer = client.call(guest_pb2.KillSessionRequest(vm=vm, session_id=session), guest_pb2.KillSessionResponse)
    if json:
        print_json(to_json(answer))
    else:
        say(session)
