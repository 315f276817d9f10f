"""`ingle image`: root file systems."""

import os
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import connect
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.many import change_each
from ingle.cli.options import AsJson, DryRun, Refresh, Verbose
from ingle.cli.output import NAMELESS, fields, print_json, say, table, tell
from ingle.cli.progress import Stages, follow
from ingle.cli.quantities import format_age, format_size
from ingle.cli.uploads import Upload
from ingle.v1 import image_pb2

app = new_app("Root file systems that VMs start from.")

Reference = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE", help="Name, id, or a unique prefix of an id.", autocompletion=completion.image_names
    ),
]
References = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help="Names, ids or unique id prefixes.", autocompletion=completion.image_names),
]


@app.command(epilog=examples("ingle image catalog"))
def catalog(json: AsJson = False) -> None:
    """What `image pull` can bring."""
    with connect() as client:
        images = client.call(image_pb2.ListCatalogImagesRequest(), image_pb2.ListCatalogImagesResponse).images
    if json:
        print_json([to_json(image) for image in images])
    else:
        rows = ((image.name, "yes" if image.present else "no", image.description) for image in images)
        say(table(("NAME", "HERE", "WHAT IT IS"), rows))


@app.command(epilog=examples("ingle image pull debian:bookworm", "ingle image pull --refresh debian:trixie"))
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Of the catalog, e.g. debian:bookworm; see ingle image catalog.",
            autocompletion=completion.image_catalog,
        ),
    ],
    refresh: Refresh = False,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Make an image of the catalog; nothing happens when it is here already."""
    with connect() as client, Stages(lines=verbose, steps=True) as stages:
        request = image_pb2.BeginPullImageRequest(name=name, refresh=refresh)
        begun = client.call(request, image_pb2.BeginPullImageResponse)
        follow(client, begun.operation, stages)
        image = client.call(image_pb2.GetImageRequest(image=name), image_pb2.GetImageResponse).image
    _tell(image, json=json)


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
    _tell(image, json=json)


@app.command(name="list", epilog=examples("ingle image list", "ingle image list --json"))
def list_images(json: AsJson = False) -> None:
    """Images that are here.

    Alias: ls."""
    with connect() as client:
        images = client.call(image_pb2.ListImagesRequest(), image_pb2.ListImagesResponse).images
    if json:
        print_json([to_json(image) for image in images])
    else:
        say(_table(images))


@app.command(epilog=examples("ingle image show debian:bookworm", "ingle image show --json debian:bookworm"))
def show(image: Reference, json: AsJson = False) -> None:
    """Everything about one image."""
    with connect() as client:
        found = client.call(image_pb2.GetImageRequest(image=image), image_pb2.GetImageResponse).image
    if json:
        print_json(to_json(found))
        return
    say(
        fields(
            (
                ("names", " ".join(found.names)),
                ("id", found.id),
                ("size", f"{format_size(found.size_bytes)}, of which {format_size(found.allocated_bytes)} on disk"),
                ("source", found.source),
                ("created", f"{found.created_at.ToDatetime(UTC):%F %T} UTC"),
            )
        )
    )


@app.command(epilog=examples("ingle image delete debian:bookworm", "ingle image rm 3f2a 91bc"))
def delete(images: References, json: AsJson = False) -> None:
    """Delete images; refused while a VM uses them.

    Alias: rm."""
    with connect() as client:
        change_each(
            images,
            lambda reference: client.begin(image_pb2.GetImageRequest(image=reference), image_pb2.GetImageResponse),
            lambda found: found.image.id,
            lambda image: client.begin(image_pb2.DeleteImageRequest(image=image), image_pb2.DeleteImageResponse),
            "Deleting",
            json=json,
        )


@app.command(epilog=examples("ingle image prune --dry-run", "ingle image prune"))
def prune(dry_run: DryRun = False, json: AsJson = False) -> None:
    """Delete images without a name that no VM uses: their names were given to newer ones."""
    with connect() as client:
        request = image_pb2.PruneImagesRequest(dry_run=dry_run)
        pruned = client.call(request, image_pb2.PruneImagesResponse).images
    if json:
        print_json([to_json(image) for image in pruned])
        return
    say(_table(pruned))
    size = format_size(sum(image.allocated_bytes for image in pruned))
    tell(f"{'would free' if dry_run else 'freed'} {size}")


def _table(images: Sequence[image_pb2.Image]) -> str:
    return table(
        ("NAME", "ID", "SIZE", "ON DISK", "AGE"),
        (
            (
                " ".join(image.names) or NAMELESS,
                image.id[:12],
                format_size(image.size_bytes),
                format_size(image.allocated_bytes),
                format_age(image.created_at.ToDatetime(UTC)),
            )
            for image in images
        ),
    )


def _tell(image: image_pb2.Image, *, json: bool) -> None:
    if json:
        print_json(to_json(image))
    else:
        say(_table([image]))
