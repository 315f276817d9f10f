"""`ingle image`: root file systems."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ingle.cli import completion, image_config, warm_memories
from ingle.cli.client import connect
from ingle.cli.commands.image_cache import app as cache
from ingle.cli.commands.vm.vm_options import (
    Accel,
    Backend,
    DiskSize,
    Engine,
    Kernel,
    Memory,
    Network,
    Vcpus,
    VmOptions,
)
from ingle.cli.errors import failed
from ingle.cli.kinds import Kind
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import Column, ListOptions
from ingle.cli.options import AsJson, DryRun, Refresh, Verbose, VmReference
from ingle.cli.progress import follow
from ingle.cli.pulling import here, pulled
from ingle.cli.quantities import format_size
from ingle.cli.spread import spread
from ingle.cli.stages import Stages
from ingle.cli.uploads import Upload
from ingle.v1 import image_pb2

_BUILDER_MEMORY = 1 << 30

app = new_app(
    "Root file systems that VMs start from.",
    first=("ingle image catalog", "ingle image pull debian:trixie", "ingle image register --name base --rootfs ./tree"),
)

_images = Kind[image_pb2.Image](
    noun="image",
    contract=image_pb2,
    one="debian:bookworm",
    columns=(
        Column("SIZE", lambda image: format_size(image.size_bytes)),
        Column("ON DISK", lambda image: format_size(image.allocated_bytes)),
    ),
    details=lambda image: (
        ("size", f"{format_size(image.size_bytes)}, of which {format_size(image.allocated_bytes)} on disk"),
        *image_config.details(image.config),
    ),
    taken_bytes=lambda image: image.allocated_bytes,
    names_go_alone=True,
)
_images.add_commands(app, lists=False)


@app.command(
    epilog=examples(
        "ingle image pull debian:bookworm              # ingle's own, of Debian's packages",
        "ingle image pull python:3.12                  # of a registry; docker.io unless said otherwise",
        "ingle image pull --refresh ghcr.io/org/app:v1",
        "ingle image pull docker://debian:bookworm     # docker.io's, not ingle's own",
        "ingle image pull oci-archive:app.tar          # of a file; so docker-archive:FILE, oci:DIR",
        "docker save app:v1 | ingle image pull -",
    )
)
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Of the catalog, see ingle image catalog; [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST] in a registry; "
            "or oci:DIR, oci-archive:FILE, docker-archive:FILE, each perhaps with :NAME, or - for stdin.",
            autocompletion=completion.pullable("image"),
        ),
    ],
    called: Annotated[
        str, typer.Option("--name", "-n", metavar="NAME", help="What to call it, where it is none of a registry's.")
    ] = "",
    refresh: Refresh = False,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Bring an image of the catalog, or of a registry; nothing happens when it is here already.

    You are to the registry who you are to docker and podman: their configurations and credential helpers are read with
    your rights. So are archives of images, which are sent to the server."""
    from ingle.cli.image_archives import ImageArchive  # noqa: PLC0415 - tarfile is slow

    if (archive := ImageArchive.parse(name)) is not None:
        with connect() as client, Stages(lines=verbose, steps=True) as stages:
            image = archive.load(client, called, stages)
        _images.tell(image, json=json)
        return
    if called:
        raise failed(
            "INVALID_ARGUMENT", "--name: an image of a registry is called what it is there", f"ingle image pull {name}"
        )
    with connect() as client, Stages(lines=verbose, steps=True) as stages:
        image = pulled(client, name, stages, refresh=refresh)
    _images.tell(image, json=json)


@app.command(
    epilog=examples(
        "docker save app:v1 | ingle image load",
        "ingle image load -i app.tar",
        "ingle image load -i app.tar --name app:mine",
    )
)
def load(
    source: Annotated[str, typer.Option("--input", "-i", metavar="FILE", help="The archive; - is stdin.")] = "-",
    called: Annotated[
        str, typer.Option("--name", "-n", metavar="NAME", help="What to call it; what the archive says unless given.")
    ] = "",
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Make an image of an archive that docker save, podman save or skopeo has written.

    It is read with your rights, and sent to the server. Where it has several, ingle image pull oci-archive:FILE:NAME
    takes one."""
    from ingle.cli.image_archives import ImageArchive  # noqa: PLC0415 - tarfile is slow

    with connect() as client, Stages(lines=verbose, steps=True) as stages:
        image = ImageArchive(source).load(client, called, stages)
    _images.tell(image, json=json)


@app.command(
    name="list",
    epilog=examples(
        "ingle image list",
        "ingle image list --filter 'name=debian*'",
        "ingle image list --format '{{.id}} {{join .names \" \"}}'",
        "ingle image list --warm           # memories of guests that have booted, with which VMs begin",
    ),
)
@spread(ListOptions)
def list_them(
    options: ListOptions,
    warm: Annotated[bool, typer.Option("--warm", help="What VMs begin with instead: guests that have booted.")] = False,
) -> None:
    """Images that are here.

    Filter: name.

    Alias: ls."""
    if not warm:
        _images.list_them(options)
        return
    with connect() as client:
        warm_memories.list_them(client, options)


@app.command(
    epilog=examples(
        "ingle image prune --dry-run",
        "ingle image prune",
        "ingle image prune --all -f  # named ones, too",
        "ingle image prune --warm --all    # what VMs begin with: they boot, until it is made again",
    )
)
def prune(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Named images as well: whatever no VM uses.")] = False,
    warm: Annotated[
        bool, typer.Option("--warm", help="Memories of guests instead: those that no VM can begin with any more.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Don't ask.")] = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Delete images without a name that no VM uses: their names were given to newer ones.

    Memories of guests that have booted with an image go with it."""
    if not warm:
        _images.prune(everything=everything, force=force, dry_run=dry_run, json=json)
        return
    with connect() as client:
        warm_memories.prune(client, everything=everything, force=force, dry_run=dry_run, json=json)


@app.command(
    epilog=examples(
        "ingle image warm debian:bookworm",
        "ingle image warm debian:bookworm --vcpu 2 --memory 2G",
    )
)
def warm(
    image: Annotated[
        str,
        typer.Argument(
            metavar="[IMAGE]", help="Name or id; the default unless given.", autocompletion=completion.image_names
        ),
    ] = "",
    kernel: Kernel = "",
    vcpu: Vcpus = None,
    memory: Memory = None,
    disk_size: DiskSize = None,
    accel: Accel = None,
    engine: Engine = "",
    disk_backend: Backend = None,
    network: Network = "",
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Have new VMs with an image begin with the memory of a guest that has booted.

    That happens by itself after the first VM of a kind, unless it is switched off. It is for the very same machine:
    image, kernel, processors, memory, disk, engine, and whether its network is one that VMs share."""
    options = VmOptions(
        image=image,
        kernel=kernel,
        vcpu=vcpu,
        memory=memory,
        disk_size=disk_size,
        accel=accel,
        engine=engine,
        disk_backend=disk_backend,
        network=network,
    )
    with connect() as client, Stages(lines=verbose, steps=True) as stages:
        if image and here(client, image) is None:
            pulled(client, image, stages)
        begun = client.call(image_pb2.BeginWarmImageRequest(spec=options.spec()), image_pb2.BeginWarmImageResponse)
        follow(client, begun.operation_id, stages)
        request = image_pb2.WarmImageRequest(spec=options.spec())
        made = client.call(request, image_pb2.WarmImageResponse).memory  # it is there
        warm_memories.show(client, made, json=json)


@app.command(
    epilog=examples(
        "ingle image register --name base --rootfs base.tar.zst",
        "ingle image register -n base --rootfs ./tree        # a directory",
        "tar c -C tree . | ingle image register -n base --rootfs -",
    )
)
def register(
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="What to call it.")],
    rootfs: Annotated[
        str, typer.Option("--rootfs", metavar="PATH", help="A tar archive, ext4 image or directory; - is stdin.")
    ],
    json: AsJson = False,
) -> None:
    """Make an image of a file or directory.

    It is read with your rights, and sent to the server. A directory that you register as an ordinary user belongs to
    root in the image."""
    from ingle.cli.sending import described, opened, send_archive, send_file, sent  # noqa: PLC0415 - tarfile is slow

    start = image_pb2.RegisterImageStart(name=name, source=described(rootfs))
    with opened(rootfs) as descriptor, connect() as client, Stages(lines=False, steps=True) as stages:
        request = image_pb2.RegisterImageRequest(start=start)
        upload = Upload(
            client, client.begin(request, image_pb2.RegisterImageResponse, last=False), image_pb2.RegisterImageRequest
        )

        def send(upload: Upload[image_pb2.RegisterImageResponse]) -> None:
            if os.path.isdir(rootfs):
                send_archive([(Path(rootfs).resolve(), ".")], rootfs, upload, stages)
            else:
                send_file(descriptor, start.source, upload, stages)

        image = sent(upload, send, f"Making image {name} of {start.source}", stages).image
    _images.tell(image, json=json)


@app.command(
    epilog=examples(
        "ingle image tag app:v1 app:stable",
        "ingle image delete app:v1             # only that name: app:stable stays",
    )
)
def tag(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="Name, id, or a unique prefix of an id.", autocompletion=completion.image_names
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="One more; it may stand for another image now.")],
    json: AsJson = False,
) -> None:
    """Give an image one more name."""
    with connect() as client:
        request = image_pb2.TagImageRequest(image=image, name=name)
        tagged = client.call(request, image_pb2.TagImageResponse).image
    _images.tell(tagged, json=json)


@app.command(
    epilog=examples(
        "ingle image save web web:configured",
        "ingle vm run --image web:configured -- sh",
    )
)
def save(
    vm: VmReference,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the image.")],
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Make an image of what is on a VM's disk, to be run as the VM's own image is.

    The VM goes on: of one that runs it is the disk as a snapshot takes it. All users of the server may use the image,
    with keys and passwords that are on the disk."""
    with connect() as client, Stages(lines=verbose, steps=True) as stages:
        begun = client.call(image_pb2.BeginSaveImageRequest(vm=vm, name=name), image_pb2.BeginSaveImageResponse)
        follow(client, begun.operation_id, stages)
        image = client.call(image_pb2.GetImageRequest(image=name), image_pb2.GetImageResponse).image
    _images.tell(image, json=json)


@app.command(
    epilog=examples(
        "ingle image build -t app:v1 .",
        "ingle image build -t app:v1 -f docker/Dockerfile --build-arg VERSION=3 --target slim .",
        "ingle vm run --rm --image app:v1",
    )
)
def build(
    place: Annotated[
        str, typer.Argument(metavar="DIR|FILE", help="What the Dockerfile may copy from, or a Dockerfile in there.")
    ],
    name: Annotated[
        str, typer.Option("--tag", "-t", metavar="NAME", help="What to call the image; as its directory unless given.")
    ] = "",
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="The Dockerfile; DIR/Dockerfile unless given.")
    ] = "",
    build_arg: Annotated[
        list[str], typer.Option(metavar="NAME[=VALUE]", help="For its ARG; without a value that of the variable here.")
    ] = [],  # noqa: B006 - Typer copies it
    target: Annotated[str, typer.Option(metavar="STAGE", help="Of its stages, the one to build.")] = "",
    vcpu: Vcpus = None,
    memory: Memory = None,
    disk_size: DiskSize = None,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Build an image of a Dockerfile, in a VM that is there for nothing else.

    Neither root nor trust is needed: what the Dockerfile runs and fetches sees the directory that you name, a copy of
    it, and the network. The VM is made of debian:bookworm-buildah, which is pulled the first time."""
    from ingle.cli.image_build import BUILDER, ImageBuild  # noqa: PLC0415 - tarfile is slow

    wanted = ImageBuild.of(place, file, build_arg, target)
    machine = VmOptions(image=BUILDER, vcpu=vcpu, memory=memory or _BUILDER_MEMORY, disk_size=disk_size).spec()
    with connect() as client, Stages(lines=verbose, steps=True) as stages:
        image = wanted.run(client, name or wanted.context.name, machine, stages)
    _images.tell(image, json=json)


@app.command(
    epilog=examples(
        "ingle image export app:v1 app.tar",
        "ingle image export app:v1 - | podman load",
        "ingle image export app:v1 - | ssh host ingle image load",
    )
)
def export(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="Name, id, or a unique prefix of an id.", autocompletion=completion.image_names
        ),
    ],
    file: Annotated[str, typer.Argument(metavar="FILE", help="What to make, for you alone to read; -: stdout.")],
) -> None:
    """Write an image to an archive that ingle image load, docker, podman and skopeo take.

    It is an OCI layout of one layer, with owners, modes, attributes, hard links and devices, and how the image is to
    be run."""
    from ingle.cli.receiving import file_or_stdout  # noqa: PLC0415 - of use here alone

    with connect() as client, file_or_stdout(file) as take, Stages(lines=False) as stages:
        stages.under_way(f"Exporting {image}")
        request = image_pb2.ExportImageRequest(image=image)
        for response in client.begin(request, image_pb2.ExportImageResponse):
            take(response.data)


app.add_typer(cache, name="cache")
