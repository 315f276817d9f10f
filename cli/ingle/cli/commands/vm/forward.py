"""`ingle vm forward|ports`: servers in a guest, reached from here."""

from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import Client, connect
from ingle.cli.errors import EXIT_SIGNAL, failed
from ingle.cli.forward_rules import RULE_FORMS, TARGET_FORMS, Local, Rule, Target, parse_rule, parse_target
from ingle.cli.forwarding import Forwarder, StandardStreams
from ingle.cli.jsonable import Json, enum_name
from ingle.cli.lazy import examples, new_app
from ingle.cli.listeners import Listener, listening
from ingle.cli.listing import Column, Filter, Listing, ListOptions, enum_numbers
from ingle.cli.options import AsJson, VmReference
from ingle.cli.output import print_json, say, tell
from ingle.cli.spread import spread
from ingle.v1 import guest_pb2, vm_pb2
from ingle.v1.protocol_pb2 import Protocol

app = new_app()

_SIGINT = 2
_PROTOCOLS = Protocol.DESCRIPTOR


@app.command(
    epilog=examples(
        "ingle vm forward web 8080:80            # http://127.0.0.1:8080 is port 80 of web",
        "ingle vm forward web 5432 0:6379        # the same port here; any free port here",
        "ingle vm forward web 0.0.0.0:8080:80    # for other hosts as well",
        "ingle vm forward web 2375:/run/docker.sock ./db.sock:5432",
        "ingle vm forward web 8080:10.0.0.7:80   # a host that the guest reaches",
        "ssh -o ProxyCommand='ingle vm forward web --stdio 22' root@web",
    )
)
def forward(
    vm: VmReference,
    rules: Annotated[
        list[str],
        typer.Argument(
            metavar="[LOCAL:]PORT...",
            help=f"{RULE_FORMS}.",
            show_default=False,
            autocompletion=completion.guest_ports,
        ),
    ],
    stdio: Annotated[
        bool, typer.Option("--stdio", help=f"One connection, on stdin and stdout: {TARGET_FORMS}.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Make servers of a VM reachable from here, until Ctrl-C (exit code 130) or the VM's end.

    Listens on 127.0.0.1 unless another address is given, and prints where. A connection that the guest refuses is told
    on stderr; the others go on. With --stdio it ends with its connection."""
    if stdio:
        _forward_stdio(vm, rules)
        return
    with listening([_rule(text) for text in rules]) as listeners, connect() as client:
        found = _running(client, vm)
        if json:
            print_json([_as_json(listener) for listener in listeners])
        else:
            for rule in (listener.rule for listener in listeners):
                say(f"{rule.local} -> {found.name} {rule.target}")
        _until_interrupted(Forwarder(client, found, listeners))


def _forward_stdio(vm: str, rules: list[str]) -> None:
    if len(rules) != 1:
        raise typer.BadParameter("it takes one target", param_hint="'--stdio'")
    try:
        target = parse_target(rules[0])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with connect() as client:
        Forwarder(client, _running(client, vm)).run_one(target, StandardStreams())


def _until_interrupted(forwarder: Forwarder) -> None:
    try:
        forwarder.run()
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_SIGNAL + _SIGINT) from None


def _rule(text: str) -> Rule:
    try:
        return parse_rule(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _running(client: Client, vm: str) -> vm_pb2.Vm:
    found = client.call(vm_pb2.GetVmRequest(vm=vm), vm_pb2.GetVmResponse).vm
    if found.state != vm_pb2.VM_STATE_RUNNING:
        raise failed("WRONG_STATE", f"VM {found.name!r} is not running", f"ingle vm start {found.name}")
    return found


def _as_json(listener: Listener) -> dict[str, Json]:
    return {"local": _place(listener.rule.local), "target": _place(listener.rule.target)}


def _place(place: Local | Target) -> dict[str, Json]:
    host = place.address if isinstance(place, Local) else place.host
    return {"host": host or None, "port": place.port or None, "path": place.path or None}


def _protocol(port: guest_pb2.ListeningPort) -> str:
    return enum_name(_PROTOCOLS, port.protocol)


def _process(port: guest_pb2.ListeningPort) -> str:
    return port.process or "-"


def _user(port: guest_pb2.ListeningPort) -> str:
    return port.user or str(port.uid)


_PORTS = Listing(
    message=guest_pb2.ListeningPort,
    columns=(
        Column("PROTO", _protocol),
        Column("ADDRESS", lambda port: port.address),
        Column("PORT", lambda port: str(port.port)),
        Column("PID", lambda port: str(port.pid) if port.pid else "-"),
        Column("PROCESS", _process),
        Column("USER", _user),
        Column("COMMAND", lambda port: " ".join(port.command)),
    ),
    name=lambda port: str(port.port),
    filters={
        "proto": Filter(lambda port: [_protocol(port)], among=enum_numbers(_PROTOCOLS)),
        "port": Filter(lambda port: [str(port.port)]),
        "process": Filter(lambda port: [_process(port)]),
        "user": Filter(lambda port: [_user(port)]),
    },
)


@app.command(epilog=examples("ingle vm ports web", "ingle vm ports --filter process=nginx -q web"))
@spread(ListOptions)
def ports(vm: VmReference, options: ListOptions) -> None:
    """The ports that processes in a VM listen on, and which processes these are.

    Filters: proto, port, process, user."""
    chosen = _PORTS.chosen(options)
    with connect() as client:
        answer = client.call(guest_pb2.ListPortsRequest(vm=vm), guest_pb2.ListPortsResponse)
    chosen.show(answer.ports)
    if answer.truncated:
        tell("ingle: there are more")
