"""`ingle vm create` and `ingle vm set`: what a VM is."""

from enum import StrEnum
from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import Client, connect
from ingle.cli.errors import CliError, Failure
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import (
    AsJson,
    Count,
    Environment,
    Publish,
    Size,
    Verbose,
    VmReference,
    parse_environment,
    parse_published,
    read_public_keys,
)
from ingle.cli.output import print_json, say, tell
from ingle.cli.progress import Interrupted, Stages, Stopwatch, follow
from ingle.v1 import image_pb2, vm_pb2

app = new_app()


class Acceleration(StrEnum):
    """--accel."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class Switch(StrEnum):
    """--nat of a VM that is there."""

    ON = "on"
    OFF = "off"


class DiskBackend(StrEnum):
    """--disk-backend."""

    QCOW2 = "qcow2"
    REFLINK = "reflink"
    DM_SNAPSHOT = "dm-snapshot"
    COPY = "copy"


class Init(StrEnum):
    """--init."""

    AGENT = "agent"
    IMAGE = "image"


Name = Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="A DNS label; made up unless given.")]
NewName = Annotated[str | None, typer.Option("--name", "-n", metavar="NAME", help="A DNS label.")]
Image = Annotated[
    str,
    typer.Option(
        "--image",
        metavar="IMAGE",
        help="Name or id; debian:bookworm unless configured.",
        autocompletion=completion.image_names,
    ),
]
Kernel = Annotated[
    str,
    typer.Option(
        "--kernel",
        metavar="KERNEL",
        help="Name or id; debian unless configured.",
        autocompletion=completion.kernel_names,
    ),
]
Vcpus = Annotated[
    int | None, typer.Option("--vcpu", metavar="N", parser=Count, help="1 to the host's; 1 unless configured.")
]
Memory = Annotated[
    int | None, typer.Option("--memory", "-m", metavar="SIZE", parser=Size, help="E.g. 2G; 512M unless configured.")
]
DiskSize = Annotated[
    int | None,
    typer.Option(
        "--disk-size", metavar="SIZE", parser=Size, help="At least the image's, e.g. 10G; 8G unless configured."
    ),
]
Accel = Annotated[
    Acceleration | None, typer.Option("--accel", help="auto, unless given: whichever a probe boot shows to work.")
]
PidOne = Annotated[
    Init | None,
    typer.Option(
        "--init", help="PID 1: the agent, or the image's own init (systemd, ...) with it beside; agent unless given."
    ),
]
SshKeys = Annotated[
    list[str],
    typer.Option("--ssh-key", metavar="FILE", help="Public key of who may come in as root by ssh (repeatable)."),
]
Backend = Annotated[DiskBackend | None, typer.Option("--disk-backend", help="The best that works here, unless given.")]


Network = Annotated[
    str,
    typer.Option(
        "--network",
        metavar="NAME",
        help="VMs of one network reach each other; user: a network of its own. default, where a system install is.",
    ),
]
Nat = Annotated[bool, typer.Option("--nat", help="Let it reach what is beyond its network.")]


def vm_spec(
    name: str,
    image: str,
    kernel: str,
    vcpu: int | None,
    memory: int | None,
    disk_size: int | None,
    env: list[str],
    accel: Acceleration | None,
    disk_backend: DiskBackend | None,
    publish: list[str],
    network: str,
    nat: bool,
    init: Init | None,
    ssh_key: list[str],
) -> vm_pb2.VmSpec:
    """The options as the contract has them; what was not given stays unset and becomes the server's default."""
    return vm_pb2.VmSpec(
        name=name,
        image=image,
        kernel=kernel,
        vcpus=vcpu,
        memory_bytes=memory,
        disk_bytes=disk_size,
        env=parse_environment(env),
        acceleration=vm_pb2.Acceleration.Value(f"ACCELERATION_{accel.name if accel else 'UNSPECIFIED'}"),
        disk_backend=disk_backend.value if disk_backend else "",
        ports=parse_published(publish),
        network=network,
        nat=nat or None,
        init=vm_pb2.Init.Value(f"INIT_{init.name if init else 'UNSPECIFIED'}"),
        ssh_keys=read_public_keys(ssh_key),
    )


def create_vm(
    client: Client, spec: vm_pb2.VmSpec, stages: Stages, *, no_start: bool = False, ephemeral: bool = False
) -> str:
    """Create it, showing the stages; answers its id. An ephemeral one lives no longer than this process. Raises
    Interrupted and CliError as `follow` does."""
    request = vm_pb2.BeginCreateVmRequest(spec=spec, no_start=no_start, ephemeral=ephemeral)
    begun = client.call(request, vm_pb2.BeginCreateVmResponse)
    return follow(client, begun.operation, stages).target_id


def get_vm(client: Client, reference: str) -> vm_pb2.Vm:
    """The VM that the reference stands for."""
    return client.call(vm_pb2.GetVmRequest(vm=reference), vm_pb2.GetVmResponse).vm


def image_names(client: Client) -> set[str]:
    """Names of all images that are here."""
    images = client.call(image_pb2.ListImagesRequest(), image_pb2.ListImagesResponse).images
    return {name for image in images for name in image.names}


def delete_vm(client: Client, vm_id: str) -> None:
    """Delete it though it runs."""
    client.call(vm_pb2.DeleteVmRequest(vm=vm_id, force=True), vm_pb2.DeleteVmResponse)


@app.command(
    epilog=examples(
        "ingle vm create --name web --memory 1G",
        "ingle vm create --no-start --image debian:trixie --disk-size 20G",
        "ingle vm create --publish 8080:80 --publish 5353:53/udp",
        "ingle vm create --env TZ=UTC --env HOME -v",
        "ingle vm create --image my-systemd --init image --ssh-key ~/.ssh/id_ed25519.pub",
    )
)
def create(
    name: Name = "",
    image: Image = "",
    kernel: Kernel = "",
    vcpu: Vcpus = None,
    memory: Memory = None,
    disk_size: DiskSize = None,
    env: Environment = [],  # noqa: B006 - Typer copies it
    accel: Accel = None,
    disk_backend: Backend = None,
    publish: Publish = [],  # noqa: B006
    network: Network = "",
    nat: Nat = False,
    init: PidOne = None,
    ssh_key: SshKeys = [],  # noqa: B006
    no_start: Annotated[bool, typer.Option("--no-start", help="Leave it stopped.")] = False,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Create a VM and start it; prints its name."""
    spec = vm_spec(
        *(name, image, kernel, vcpu, memory, disk_size, env, accel, disk_backend, publish, network, nat, init, ssh_key)
    )
    watch = Stopwatch()
    with connect() as client, Stages(lines=verbose) as stages:
        stages.stage_ended("connect", watch.seconds())
        try:
            vm_id = create_vm(client, spec, stages, no_start=no_start)
        except Interrupted as interrupted:
            if interrupted.operation.error.message:
                raise KeyboardInterrupt from interrupted
            vm_id = interrupted.operation.target_id
            tell("ingle: too late to cancel: it is there")
        vm = get_vm(client, vm_id)
        stages.stage_ended("in all", watch.seconds())
    if json:
        print_json(to_json(vm))
    else:
        say(vm.name)


@app.command(
    name="set",
    epilog=examples(
        "ingle vm set web --name shop",
        "ingle vm set web --vcpu 2 --memory 2G       # stopped VMs only",
        "ingle vm set web --disk-size 20G            # disks only grow",
        "ingle vm set web --nat on",
    ),
)
def set_vm(
    vm: VmReference,
    name: NewName = None,
    vcpu: Vcpus = None,
    memory: Memory = None,
    disk_size: DiskSize = None,
    nat: Annotated[Switch | None, typer.Option("--nat", help="Reach what is beyond its network; at once.")] = None,
    json: AsJson = False,
) -> None:
    """Change a VM's name, vCPUs, memory, disk size or NAT."""
    changes = {
        "name": name,
        "vcpus": vcpu,
        "memory_bytes": memory,
        "disk_bytes": disk_size,
        "nat": None if nat is None else nat is Switch.ON,
    }
    given = {field: value for field, value in changes.items() if value is not None}
    if not given:
        raise CliError(Failure("INVALID_ARGUMENT", "nothing to change", "ingle vm set --help"))
    request = vm_pb2.UpdateVmRequest(vm=vm, spec=vm_pb2.VmSpec(**given))  # type: ignore[arg-type]
    request.update_mask.paths.extend(given)
    with connect() as client, Stages(lines=False) as stages:
        stages.under_way(f"Changing {vm}")
        changed = client.call(request, vm_pb2.UpdateVmResponse).vm
    if json:
        print_json(to_json(changed))
    else:
        say(changed.name)
