"""`ingle vm list|show|health|ping|logs`: looking at VMs without changing them."""

from datetime import UTC, timedelta
from typing import Annotated

import typer

from ingle.cli import signals
from ingle.cli.client import Client, connect, duration
from ingle.cli.errors import EXIT_FAILED
from ingle.cli.jsonable import enum_name, to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, Count, VmReference
from ingle.cli.output import ConsoleOutput, fields, print_json, say, table
from ingle.cli.printable import one_line
from ingle.cli.quantities import format_age, format_seconds, format_size
from ingle.v1 import vm_pb2

app = new_app()

_STATES = vm_pb2.VmState.DESCRIPTOR
_ACCELERATIONS = vm_pb2.Acceleration.DESCRIPTOR
_PATIENCE = timedelta(seconds=1)


@app.command(
    name="list", epilog=examples("ingle vm list", "ingle ps", "ingle vm list --json", "ingle vm stop $(ingle ps -q)")
)
def list_vms(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Names only.")] = False,
    json: AsJson = False,
    _all: Annotated[bool, typer.Option("--all", "-a", hidden=True, help="As ever: all are listed.")] = False,
) -> None:
    """All VMs, oldest first.

    Aliases: ls, ps."""
    if quiet and json:
        raise typer.BadParameter("it does not go with --json, which has all of it", param_hint="'--quiet' / '-q'")
    with connect() as client:
        vms = client.call(vm_pb2.ListVmsRequest(), vm_pb2.ListVmsResponse).vms
    if json:
        print_json([to_json(vm) for vm in vms])
    elif quiet:
        for vm in vms:
            say(one_line(vm.name))
    else:
        rows = (
            (
                vm.name,
                vm.id,
                enum_name(_STATES, vm.state) + (", stands still" if vm.problem else ""),
                vm.image_name,
                str(vm.vcpus),
                format_size(vm.memory_bytes),
                format_size(vm.disk_bytes),
                format_age(vm.created_at.ToDatetime(UTC)),
            )
            for vm in vms
        )
        say(table(("NAME", "ID", "STATE", "IMAGE", "VCPUS", "MEMORY", "DISK", "AGE"), rows))


def _published(port: vm_pb2.PublishedPort) -> str:
    protocol = "/udp" if port.protocol == vm_pb2.PROTOCOL_UDP else ""
    address = f"[{port.address}]" if ":" in port.address else port.address
    return f"{address}{address and ':'}{port.host_port}:{port.vm_port}{protocol}"


@app.command(epilog=examples("ingle vm show web", "ingle vm show --json web"))
def show(vm: VmReference, json: AsJson = False) -> None:
    """Everything about one VM."""
    with connect() as client:
        found = client.call(vm_pb2.GetVmRequest(vm=vm), vm_pb2.GetVmResponse).vm
        health = _health(client, found)
    activity = health.activity if health.HasField("activity") else None
    changes = health.disk_changes if health.HasField("disk_changes") else None
    if json:
        told = {"activity": activity, "disk_changes": changes}
        print_json({**to_json(found), **{name: to_json(part) if part else None for name, part in told.items()}})
        return
    running = found.HasField("started_at")
    say(
        fields(
            (
                ("name", found.name),
                ("id", found.id),
                ("state", enum_name(_STATES, found.state)),
                ("error", found.error),
                ("problem", health.problem or found.problem),
                ("image", f"{found.image_name}  {found.image_id[:12]}"),
                ("kernel", f"{found.kernel_name}  {found.kernel_id[:12]}"),
                ("engine", found.engine),
                ("init", "image" if found.init == vm_pb2.INIT_IMAGE else ""),
                ("acceleration", enum_name(_ACCELERATIONS, found.running_acceleration or found.acceleration)),
                ("vcpus", str(found.vcpus)),
                ("memory", format_size(found.memory_bytes)),
                ("disk", f"{format_size(found.disk_bytes)}  {found.disk_backend}"),
                ("changes", _changes_text(changes) if changes else ""),
                ("network", found.network + (", NAT" if found.nat and found.network != "user" else "")),
                ("address", " ".join(filter(None, (found.address, found.address6)))),
                ("ports", " ".join(_published(port) for port in found.ports)),
                ("env", " ".join(f"{key}={found.env[key]}" for key in sorted(found.env))),
                ("created", f"{found.created_at.ToDatetime(UTC):%F %T} UTC"),
                ("started", f"{found.started_at.ToDatetime(UTC):%F %T} UTC" if running else ""),
                ("pid", str(found.pid) if running else ""),
                ("boot id", found.boot_id),
                ("activity", _activity_text(activity) if activity else ""),
            )
        )
    )


def _health(client: Client, vm: vm_pb2.Vm) -> vm_pb2.GetVmHealthResponse:
    """How a VM is; nothing when it doesn't run. What else is to be shown doesn't wait long for a guest that hangs."""
    if vm.state != vm_pb2.VM_STATE_RUNNING:
        return vm_pb2.GetVmHealthResponse()
    request = vm_pb2.GetVmHealthRequest(vm=vm.id, patience=duration(_PATIENCE))
    return client.call(request, vm_pb2.GetVmHealthResponse)


def _changes_text(changes: vm_pb2.DiskChanges) -> str:
    return f"{format_size(changes.used_bytes)}, " + (
        "lost" if changes.overflowed else f"room for {format_size(changes.room_bytes)} more"
    )


def _activity_text(activity: vm_pb2.GuestActivity) -> str:
    counts = (("commands", activity.execs), ("sessions", activity.sessions), ("forwards", activity.forwards))
    running = ", ".join(f"{count} {name}" for name, count in counts if count)
    return f"{running or 'nothing runs'}; idle for {format_seconds(activity.idle.ToTimedelta().total_seconds())}"


@app.command(epilog=examples("ingle vm health web", "ingle vm health web && ingle vm exec web -- ./check"))
def health(vm: VmReference, json: AsJson = False) -> None:
    """Tell whether the VMM lives and the guest answers.

    Exit code 1 when not."""
    with connect() as client:
        found = client.call(vm_pb2.GetVmHealthRequest(vm=vm), vm_pb2.GetVmHealthResponse)
    if json:
        print_json(to_json(found))
    else:
        say(
            fields(
                (
                    ("state", enum_name(_STATES, found.state)),
                    ("vmm", "alive" if found.vmm_alive else "not alive"),
                    ("agent", "answers" if found.agent_answers else "does not answer"),
                    ("problem", found.problem),
                )
            )
        )
    if not found.agent_answers:
        raise typer.Exit(EXIT_FAILED)


@app.command(epilog=examples("ingle vm ping web"))
def ping(vm: VmReference, json: AsJson = False) -> None:
    """One round trip from the server to the guest's agent."""
    with connect() as client:
        answer = client.call(vm_pb2.PingVmRequest(vm=vm), vm_pb2.PingVmResponse)
    if json:
        print_json(to_json(answer))
    else:
        milliseconds = answer.round_trip.ToNanoseconds() / 1e6
        say(f"{milliseconds:.2f} ms  agent {answer.agent_version}")


@app.command(epilog=examples("ingle vm logs web", "ingle vm logs -f --tail 20 web", "ingle vm logs --vmm web"))
def logs(
    vm: VmReference,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    vmm: Annotated[bool, typer.Option("--vmm", help="The VMM's stderr instead of the guest's console.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="LINES", parser=Count, help="Only the last lines.")
    ] = None,
    json: AsJson = False,
) -> None:
    """The guest's serial console: byte for byte, or on a terminal as text that can't drive it."""
    request = vm_pb2.StreamVmLogsRequest(
        vm=vm,
        source=vm_pb2.LOG_SOURCE_VMM if vmm else vm_pb2.LOG_SOURCE_CONSOLE,
        follow=follow,
        tail_lines=tail,
    )
    if follow:
        signals.end_with_the_reader()
    with connect() as client:
        output = ConsoleOutput()
        for part in client.begin(request, vm_pb2.StreamVmLogsResponse):
            output.write(part.data)
        output.end()
