"""`ingle vm update` and `ingle vm rename`: changes of what a VM is."""

import shlex
from enum import StrEnum
from typing import Annotated

import typer

from ingle.cli.client import Client, connect, duration
from ingle.cli.commands.vm.create import get_vm
from ingle.cli.commands.vm.vm_options import (
    AutoStart,
    ChangedLabels,
    DeleteAfter,
    DiskBandwidth,
    DiskIops,
    HibernateAfter,
    KeepAwake,
    NetBandwidth,
    PauseAfter,
    WakeByName,
    changed_labels,
)
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, Count, Size, StopTimeout, VmReference
from ingle.cli.output import print_json, say, tell
from ingle.cli.stages import Stages
from ingle.v1 import vm_pb2

app = new_app()


class Switch(StrEnum):
    """--nat of a VM that is there."""

    ON = "on"
    OFF = "off"


Vcpus = Annotated[int | None, typer.Option("--vcpu", metavar="N", parser=Count, help="1 to the host's.")]
Memory = Annotated[int | None, typer.Option("--memory", "-m", metavar="SIZE", parser=Size, help="E.g. 2G.")]
DiskSize = Annotated[
    int | None, typer.Option("--disk-size", metavar="SIZE", parser=Size, help="At least what it has, e.g. 20G.")
]
NewName = Annotated[str | None, typer.Option("--name", "-n", metavar="NAME", help="A DNS label.")]


@app.command(
    epilog=examples(
        "ingle vm update web --name shop",
        "ingle vm update web --vcpu 2 --memory 2G               # a stopped VM",
        "ingle vm update web --restart --vcpu 2 --memory 2G     # one that runs",
        "ingle vm update web --disk-size 20G                    # disks only grow",
        "ingle vm update web --nat on",
        "ingle vm update web --pause-after 10m --hibernate-after 1h",
        "ingle vm update web --hibernate-after never --keep-awake",
        "ingle vm update web --disk-bandwidth 50M --disk-iops none",
        "ingle vm update web --auto-start yes                   # whenever the host starts",
        "ingle vm update web --label team=shop --label ci-      # a minus takes one away",
    ),
)
def update(
    vm: VmReference,
    name: NewName = None,
    vcpu: Vcpus = None,
    memory: Memory = None,
    disk_size: DiskSize = None,
    nat: Annotated[Switch | None, typer.Option("--nat", help="Reach what is beyond its network; at once.")] = None,
    label: ChangedLabels = [],  # noqa: B006 - Typer copies it
    pause_after: PauseAfter = None,
    hibernate_after: HibernateAfter = None,
    delete_after: DeleteAfter = None,
    keep_awake: KeepAwake = None,
    wake_by_name: WakeByName = None,
    disk_iops: DiskIops = None,
    disk_bandwidth: DiskBandwidth = None,
    net_bandwidth: NetBandwidth = None,
    auto_start: AutoStart = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Stop and start it for this, if it runs and the change needs that.")
    ] = False,
    timeout: StopTimeout = None,
    json: AsJson = False,
) -> None:
    """Change a VM's name, vCPUs, memory, disk size, NAT, labels, sleep, limits, or start
    with the host.

    vCPUs, memory and disk size change while it is stopped, or with --restart: what is refused anyway stops nothing, and
    a VM that was stopped for it is started again, also when the change fails, and whoever is killed meanwhile.

    Alias: set."""
    changes = {
        "name": name,
        "vcpus": vcpu,
        "memory_bytes": memory,
        "disk_bytes": disk_size,
        "nat": None if nat is None else nat is Switch.ON,
        "pause_after": duration(pause_after),
        "hibernate_after": duration(hibernate_after),
        "delete_after": duration(delete_after),
        "keep_awake": keep_awake,
        "wake_by_name": wake_by_name,
        "disk_iops": disk_iops,
        "disk_bytes_per_second": disk_bandwidth,
        "net_bytes_per_second": net_bandwidth,
        "auto_start": auto_start,
    }
    given = {field: value for field, value in changes.items() if value is not None}
    if not given and not label:
        raise typer.BadParameter(
            "nothing to change; give one of --name, --vcpu, --memory, --disk-size, --nat, --label, --pause-after, "
            "--hibernate-after, --delete-after, --keep-awake, --auto-start, --disk-iops, "
            "--disk-bandwidth or --net-bandwidth"
        )
    if timeout is not None and not restart:
        raise typer.BadParameter("it goes with --restart", param_hint="'--timeout' / '-t'")
    changed_labels({}, label)  # what can't be one is refused before anything else
    request = vm_pb2.UpdateVmRequest(
        vm=vm,
        spec=vm_pb2.VmSpec(**given),  # type: ignore[arg-type]
        restart=restart,
        timeout=duration(timeout),
    )
    request.update_mask.paths.extend(given)
    with connect() as client, Stages(lines=False) as stages:
        stages.under_way(f"Changing {vm}")
        if label:
            now = get_vm(client, vm)
            request.spec.labels.update(changed_labels(now.labels, label))
            request.update_mask.paths.append("labels")
            request.expected_generation = now.generation  # or what another has just written on it would be lost
        try:
            changed = _change(client, request)
        except (KeyboardInterrupt, SystemExit):
            if restart:
                tell(f"interrupted: what was begun goes on; to see: ingle vm show {shlex.quote(vm)}")
            raise
    _tell(changed, json=json)


@app.command(epilog=examples("ingle vm rename web shop"))
def rename(
    vm: VmReference,
    name: Annotated[str, typer.Argument(metavar="NEW", help="A DNS label.")],
    json: AsJson = False,
) -> None:
    """Give a VM another name, at once; its guest hears of it."""
    request = vm_pb2.UpdateVmRequest(vm=vm, spec=vm_pb2.VmSpec(name=name))
    request.update_mask.paths.append("name")
    with connect() as client:
        changed = _change(client, request)
    _tell(changed, json=json)


def _change(client: Client, request: vm_pb2.UpdateVmRequest) -> vm_pb2.Vm:
    return client.call(request, vm_pb2.UpdateVmResponse).vm


def _tell(changed: vm_pb2.Vm, *, json: bool) -> None:
    if json:
        print_json(to_json(changed))
    else:
        say(changed.name)
