"""`ingle vm list|show|inspect|health|ping`: looking at VMs without changing them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Annotated, cast

import typer

from ingle.cli import workload
from ingle.cli.client import Client, connect, duration
from ingle.cli.errors import EXIT_FAILED
from ingle.cli.jsonable import Json, Shape, enum_name, shape_of, to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import (
    AllUsers,
    Column,
    Filter,
    Format,
    Formatted,
    Listing,
    ListOptions,
    enum_numbers,
    formatted_one,
)
from ingle.cli.options import AsJson, VmReference, VmReferences
from ingle.cli.output import fields, print_json, say
from ingle.cli.owners import another, called, user_name
from ingle.cli.quantities import format_age, format_seconds, format_size
from ingle.cli.spread import spread
from ingle.v1 import healthcheck_pb2, vm_pb2
from ingle.v1.protocol_pb2 import PROTOCOL_UDP

app = new_app()

_STATES = vm_pb2.VmState.DESCRIPTOR
_HEALTH = healthcheck_pb2.HealthStatus.DESCRIPTOR
_BOOT_MODES = vm_pb2.BootMode.DESCRIPTOR
_ACCELERATIONS = vm_pb2.Acceleration.DESCRIPTOR
_PATIENCE = timedelta(seconds=1)


def _state(vm: vm_pb2.Vm) -> str:
    return enum_name(_STATES, vm.state)


def _health_of(vm: vm_pb2.Vm, before: str = "") -> str:
    """What its healthcheck has come to; empty of one that is not asked."""
    if vm.health.status == healthcheck_pb2.HEALTH_STATUS_STARTING:
        return f"{before}not healthy yet"
    return f"{before}{enum_name(_HEALTH, vm.health.status)}" if vm.health.status else ""


VMS = Listing(
    message=vm_pb2.Vm,
    columns=(
        Column("NAME", lambda vm: vm.name),
        Column("ID", lambda vm: vm.id),
        Column("STATE", lambda vm: _state(vm) + (", stands still" if vm.problem else _health_of(vm, ", "))),
        Column("IMAGE", lambda vm: vm.image_name),
        Column("VCPUS", lambda vm: str(vm.vcpus)),
        Column("MEMORY", lambda vm: format_size(vm.memory_bytes)),
        Column("DISK", lambda vm: format_size(vm.disk_bytes)),
        Column("AGE", lambda vm: format_age(vm.created_at.ToDatetime(UTC))),
    ),
    name=lambda vm: vm.name,
    filters={
        "state": Filter(among=enum_numbers(_STATES), ask="states"),
        "name": Filter(lambda vm: [vm.name]),
        "label": Filter(ask="labels"),
        "image": Filter(lambda vm: [vm.image_name, vm.image_id]),
        "network": Filter(lambda vm: [vm.network]),
    },
)


def _of_all(vms: Listing[vm_pb2.Vm]) -> Listing[vm_pb2.Vm]:
    """The same of everybody's."""
    owner = Column[vm_pb2.Vm]("OWNER", lambda vm: user_name(vm.owner))
    return replace(vms, columns=(owner, *vms.columns), name=lambda vm: called(vm.owner, vm.name))


@app.command(
    name="list",
    epilog=examples(
        "ingle vm list",
        "ingle ps --filter state=running --filter label=stage=test",
        "ingle vm list --format '{{.name}} {{.address}}'",
        "ingle vm list --format 'table {{.name}}\\t{{.labels}}'",
        "ingle vm stop $(ingle ps -q)",
    ),
)
@spread(ListOptions)
def list_vms(
    options: ListOptions,
    all_users: AllUsers = False,
    _all: Annotated[bool, typer.Option("--all", "-a", hidden=True, help="As ever: all are listed.")] = False,
) -> None:
    """All of your VMs, oldest first.

    Filters: state, name, image (its name or id), network, label (KEY or KEY=VALUE).

    Aliases: ls, ps."""
    chosen = (_of_all(VMS) if all_users else VMS).chosen(options)
    with connect() as client:
        request = chosen.asking(vm_pb2.ListVmsRequest(all_users=all_users))
        vms = client.all(request, vm_pb2.ListVmsResponse).vms
    chosen.show(vms)


def _published(port: vm_pb2.PublishedPort) -> str:
    protocol = "/udp" if port.protocol == PROTOCOL_UDP else ""
    address = f"[{port.address}]" if ":" in port.address else port.address
    return f"{address}{address and ':'}{port.host_port}:{port.vm_port}{protocol}"


def _shape() -> Shape:
    return {
        **cast("Mapping[str, Shape]", shape_of(vm_pb2.Vm.DESCRIPTOR)),
        "activity": shape_of(vm_pb2.GuestActivity.DESCRIPTOR),
        "disk_changes": shape_of(vm_pb2.DiskChanges.DESCRIPTOR),
    }


@app.command(epilog=examples("ingle vm show web", "ingle vm show --format '{{.address}}' web"))
def show(vm: VmReference, format_: Format = "", json: AsJson = False) -> None:
    """Everything about one VM."""
    formatted = formatted_one(format_, _shape, json=json)
    with connect() as client:
        found, health = _looked_at(client, vm)
    if formatted is None:
        _tell(found, health)
    else:
        formatted.show_one(_as_json(found, health))


@app.command(
    epilog=examples("ingle vm inspect web db", "ingle vm inspect --format '{{.name}} {{json .ports}}' web db"),
)
def inspect(vms: VmReferences, format_: Format = "", json: AsJson = False) -> None:
    """Everything about VMs, as a list in JSON."""
    formatted = Formatted("json" if json else format_ or "json", _shape)
    with connect() as client:
        formatted.show_each(vms, lambda vm: _as_json(*_looked_at(client, vm)))


def _looked_at(client: Client, reference: str) -> tuple[vm_pb2.Vm, vm_pb2.GetVmHealthResponse]:
    found = client.call(vm_pb2.GetVmRequest(vm=reference), vm_pb2.GetVmResponse).vm
    return found, _health(client, found)


def _as_json(vm: vm_pb2.Vm, health: vm_pb2.GetVmHealthResponse) -> dict[str, Json]:
    return {
        **to_json(vm),
        "activity": to_json(health.activity) if health.HasField("activity") else None,
        "disk_changes": to_json(health.disk_changes) if health.HasField("disk_changes") else None,
    }


def _tell(found: vm_pb2.Vm, health: vm_pb2.GetVmHealthResponse) -> None:
    activity = health.activity if health.HasField("activity") else None
    changes = health.disk_changes if health.HasField("disk_changes") else None
    running = found.HasField("started_at")
    asleep = found.HasField("asleep_since")
    say(
        fields(
            (
                ("name", found.name),
                ("id", found.id),
                ("owner", another(found.owner)),
                ("state", enum_name(_STATES, found.state)),
                ("asleep", f"since {found.asleep_since.ToDatetime(UTC):%F %T} UTC" if asleep else ""),
                ("health", _health_text(found)),
                ("error", found.error or found.sleep_error),
                ("problem", health.problem or found.problem),
                ("image", f"{found.image_name}  {found.image_id[:12]}"),
                ("snapshot", found.snapshot_id),
                ("kernel", f"{found.kernel_name}  {found.kernel_id[:12]}"),
                ("engine", found.engine),
                ("unused", _unused_text(found)),
                ("auto-start", str(found.auto_start) if found.auto_start else ""),
                ("labels", ", ".join(f"{key}={value}".rstrip("=") for key, value in sorted(found.labels.items()))),
                ("init", "image" if found.init == vm_pb2.INIT_IMAGE else ""),
                ("acceleration", enum_name(_ACCELERATIONS, found.running_acceleration or found.acceleration)),
                ("vcpus", str(found.vcpus)),
                ("memory", format_size(found.memory_bytes)),
                ("disk", f"{format_size(found.disk_bytes)}  {found.disk_backend}"),
                ("changes", _changes_text(changes) if changes else ""),
                ("network", found.network + (", NAT" if found.nat and found.network != "user" else "")),
                ("limits", _limits_text(found)),
                ("address", " ".join(filter(None, (found.address, found.address6)))),
                ("ports", " ".join(_published(port) for port in found.ports)),
                ("env", " ".join(f"{key}={found.env[key]}" for key in sorted(found.env))),
                *workload.details(found.workload),
                ("healthcheck", workload.asked(found.healthcheck)),
                ("created", f"{found.created_at.ToDatetime(UTC):%F %T} UTC"),
                ("started", f"{found.started_at.ToDatetime(UTC):%F %T} UTC" if running else ""),
                ("pid", str(found.pid) if running else ""),
                ("boot", enum_name(_BOOT_MODES, found.boot_mode) if running else ""),
                ("boot id", found.boot_id),
                ("activity", _activity_text(activity) if activity else ""),
            )
        )
    )


def _health_text(vm: vm_pb2.Vm) -> str:
    health, told = vm.health, [_health_of(vm)]
    if health.failures:
        told.append(f"{health.failures} failed in a row")
    if health.HasField("checked_at"):
        told.append(f"asked {format_age(health.checked_at.ToDatetime(UTC))} ago")
    if not health.output:
        return ", ".join(filter(None, told))
    return ", ".join(filter(None, told)) + "\n" + health.output


def _limits_text(vm: vm_pb2.Vm) -> str:
    """How much it may take in a second."""
    disk = [f"{vm.disk_iops} reads and writes" if vm.disk_iops else ""]
    disk += [format_size(vm.disk_bytes_per_second) if vm.disk_bytes_per_second else ""]
    of_disk = " and ".join(filter(None, disk))
    of_network = format_size(vm.net_bytes_per_second) if vm.net_bytes_per_second else ""
    told = (("of its disk", of_disk), ("of its network in each direction", of_network))
    return ", ".join(f"{much} a second {what}" for what, much in told if much)


def _unused_text(vm: vm_pb2.Vm) -> str:
    """What becomes of it when nobody uses it."""
    wishes = (("paused", "pause_after"), ("hibernated", "hibernate_after"), ("deleted", "delete_after"))
    told = [
        f"{what} after {format_seconds(getattr(vm, field).ToTimedelta().total_seconds())}"
        for what, field in wishes
        if vm.HasField(field)  # type: ignore[arg-type]
    ]
    told += ["kept awake"] if vm.keep_awake else []
    told += ["not woken by its name"] if vm.network not in {"", "user"} and not vm.wake_by_name else []
    return ", ".join(told)


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
