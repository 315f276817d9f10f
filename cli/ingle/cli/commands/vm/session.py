"""`ingle vm session`: terminals in VMs that outlive whoever looks at them."""

from datetime import UTC
from typing import Annotated

import typer

from ingle.cli import completion, tty
from ingle.cli.attachment import attach
from ingle.cli.client import connect
from ingle.cli.commands.vm.run import told_apart_from_the_guest
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, VmReference, as_option
from ingle.cli.output import print_json, say, table
from ingle.cli.quantities import format_age, format_seconds
from ingle.v1 import guest_pb2

app = new_app("Terminals in VMs, which outlive whoever looks at them.")

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


@app.command(name="list", epilog=examples("ingle vm session list web", "ingle vm session list --json web"))
def list_sessions(vm: VmReference, json: AsJson = False) -> None:
    """The sessions of a VM, oldest first.

    Alias: ls."""
    with connect() as client:
        request = guest_pb2.ListSessionsRequest(vm=vm)
        sessions = client.call(request, guest_pb2.ListSessionsResponse).sessions
    if json:
        print_json([to_json(session) for session in sessions])
        return
    rows = (
        (
            session.id,
            "yes" if session.attached else "no",
            f"{session.size.columns}x{session.size.rows}",
            format_seconds(session.idle.ToTimedelta().total_seconds()),
            format_age(session.started_at.ToDatetime(UTC)),
            " ".join(session.argv),
        )
        for session in sessions
    )
    say(table(("SESSION", "ATTACHED", "SIZE", "IDLE", "AGE", "COMMAND"), rows))


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
