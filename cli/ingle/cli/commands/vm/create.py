"""`ingle vm create`: a VM that stays."""

from typing import Annotated

import typer

from ingle.cli.client import Client, connect
from ingle.cli.commands.vm.vm_options import VmOptions
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, Verbose
from ingle.cli.output import print_json, say, tell
from ingle.cli.progress import Interrupted, follow
from ingle.cli.pulling import here, logins_for
from ingle.cli.spread import spread
from ingle.cli.stages import Stages, Stopwatch
from ingle.v1 import image_pb2, vm_pb2

app = new_app()


def create_vm(
    client: Client, spec: vm_pb2.VmSpec, stages: Stages, *, no_start: bool = False, ephemeral: bool = False
) -> str:
    """Create it, showing the stages; answers its id. An ephemeral one lives no longer than this process. Raises
    Interrupted and CliError as `follow` does."""
    request = vm_pb2.BeginCreateVmRequest(spec=spec, no_start=no_start, ephemeral=ephemeral)
    if spec.image and here(client, spec.image) is None:
        request.logins.extend(logins_for(client, spec.image))
    begun = client.call(request, vm_pb2.BeginCreateVmResponse)
    return follow(client, begun.operation_id, stages).target_id


def get_vm(client: Client, reference: str) -> vm_pb2.Vm:
    """The VM that the reference stands for."""
    return client.call(vm_pb2.GetVmRequest(vm=reference), vm_pb2.GetVmResponse).vm


def image_names(client: Client) -> set[str]:
    """Names of all images that are here."""
    images = client.all(image_pb2.ListImagesRequest(), image_pb2.ListImagesResponse).images
    return {name for image in images for name in image.names}


def delete_vm(client: Client, vm_id: str) -> None:
    """Delete it though it runs."""
    client.call(vm_pb2.DeleteVmRequest(vm=vm_id, force=True), vm_pb2.DeleteVmResponse)


@app.command(
    epilog=examples(
        "ingle vm create --name web --memory 1G",
        "ingle vm create --no-start --image debian:trixie --disk-size 20G",
        "ingle vm create --image python:3.12            # of a registry; docker.io unless said otherwise",
        "ingle vm create --health-cmd 'wget -q -O /dev/null localhost' --health-interval 10s",
        "ingle vm create --publish 8080:80 --publish 5353:53/udp",
        "ingle vm create --env TZ=UTC --env HOME --env-file app.env -v",
        "ingle vm create --image my-systemd --init image --ssh-key ~/.ssh/id_ed25519.pub",
    )
)
@spread(VmOptions)
def create(
    options: VmOptions,
    no_start: Annotated[bool, typer.Option("--no-start", help="Leave it stopped.")] = False,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Create a VM and start it; prints its name."""
    spec = options.spec()
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
