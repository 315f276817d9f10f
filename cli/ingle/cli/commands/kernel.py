"""`ingle kernel`: guest kernels."""

from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer

from ingle.cli import completion
from ingle.cli.client import connect
from ingle.cli.errors import failed
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.many import change_each
from ingle.cli.options import AsJson, DryRun, Refresh, Verbose
from ingle.cli.output import NAMELESS, fields, print_json, say, table, tell
from ingle.cli.progress import Stages, follow
from ingle.cli.quantities import format_age, format_size
from ingle.cli.uploads import Upload
from ingle.v1 import kernel_pb2

app = new_app("Kernels that VMs boot.")

Reference = Annotated[
    str,
    typer.Argument(
        metavar="KERNEL", help="Name, id, or a unique prefix of an id.", autocompletion=completion.kernel_names
    ),
]
References = Annotated[
    list[str],
    typer.Argument(
        metavar="KERNEL...", help="Names, ids or unique id prefixes.", autocompletion=completion.kernel_names
    ),
]


@app.command(epilog=examples("ingle kernel catalog"))
def catalog(json: AsJson = False) -> None:
    """What `kernel pull` can bring."""
    with connect() as client:
        kernels = client.call(kernel_pb2.ListCatalogKernelsRequest(), kernel_pb2.ListCatalogKernelsResponse).kernels
    if json:
        print_json([to_json(kernel) for kernel in kernels])
    else:
        rows = ((kernel.name, "yes" if kernel.present else "no", kernel.description) for kernel in kernels)
        say(table(("NAME", "HERE", "WHAT IT IS"), rows))


@app.command(epilog=examples("ingle kernel pull debian", "ingle kernel pull --refresh debian"))
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Of the catalog; see ingle kernel catalog.", autocompletion=completion.kernel_catalog
        ),
    ],
    refresh: Refresh = False,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Bring a kernel of the catalog; nothing happens when it is here already."""
    with connect() as client, Stages(lines=verbose, steps=True) as stages:
        request = kernel_pb2.BeginPullKernelRequest(name=name, refresh=refresh)
        begun = client.call(request, kernel_pb2.BeginPullKernelResponse)
        follow(client, begun.operation, stages)
        kernel = client.call(kernel_pb2.GetKernelRequest(kernel=name), kernel_pb2.GetKernelResponse).kernel
    _tell(kernel, json=json)


@app.command(
    name="import",
    epilog=examples(
        "ingle kernel import --name mine ./vmlinux",
        "ingle kernel import -n mine --modules /lib/modules/6.1.0-40-amd64 /boot/vmlinuz-6.1.0-40-amd64",
    ),
)
def import_kernel(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A vmlinux or bzImage.")],
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="What to call it.")],
    modules: Annotated[
        Path | None, typer.Option("--modules", metavar="DIR", help="Its lib/modules/RELEASE; none if all is built in.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Take a kernel of one's own.

    It and its modules are read with your rights, and sent to the server."""
    from ingle.cli.kernel_modules import needed_of  # noqa: PLC0415 - this command alone
    from ingle.cli.sending import described, opened, send_archive, send_file, sent  # noqa: PLC0415 - tarfile is slow

    start = kernel_pb2.ImportKernelStart(name=name, source=described(file))
    if modules is not None and not modules.is_dir():
        raise failed("INVALID_ARGUMENT", f"{modules} is not a directory", "give a lib/modules/RELEASE directory")
    with opened(file) as descriptor, connect() as client, Stages(lines=False, steps=True) as stages:
        needed: Sequence[str] = ()
        if modules is not None:
            needed = client.call(kernel_pb2.ListNeededModulesRequest(), kernel_pb2.ListNeededModulesResponse).names
        request = kernel_pb2.ImportKernelRequest(start=start)
        upload = Upload(
            client, client.begin(request, kernel_pb2.ImportKernelResponse, last=False), kernel_pb2.ImportKernelRequest
        )

        def send(upload: Upload[kernel_pb2.ImportKernelResponse]) -> None:
            if modules is None:
                send_file(descriptor, start.source, upload, stages)
            else:
                sources = [(Path(file).resolve(), "kernel"), *needed_of(modules.resolve(), needed)]
                send_archive(sources, f"{start.source} and {modules}", upload, stages)

        kernel = sent(upload, send, f"Unpacking {start.source}", stages).kernel
    _tell(kernel, json=json)


@app.command(name="list", epilog=examples("ingle kernel list", "ingle kernel list --json"))
def list_kernels(json: AsJson = False) -> None:
    """Kernels that are here.

    Alias: ls."""
    with connect() as client:
        kernels = client.call(kernel_pb2.ListKernelsRequest(), kernel_pb2.ListKernelsResponse).kernels
    if json:
        print_json([to_json(kernel) for kernel in kernels])
    else:
        say(_table(kernels))


@app.command(epilog=examples("ingle kernel show debian", "ingle kernel show --json debian"))
def show(kernel: Reference, json: AsJson = False) -> None:
    """Everything about one kernel."""
    with connect() as client:
        found = client.call(kernel_pb2.GetKernelRequest(kernel=kernel), kernel_pb2.GetKernelResponse).kernel
    if json:
        print_json(to_json(found))
        return
    say(
        fields(
            (
                ("names", " ".join(found.names)),
                ("id", found.id),
                ("release", found.release),
                ("size", format_size(found.size_bytes)),
                ("modules", str(found.modules)),
                ("source", found.source),
                ("created", f"{found.created_at.ToDatetime(UTC):%F %T} UTC"),
            )
        )
    )


@app.command(epilog=examples("ingle kernel delete debian", "ingle kernel rm 3f2a 91bc"))
def delete(kernels: References, json: AsJson = False) -> None:
    """Delete kernels; refused while a VM uses them.

    Alias: rm."""
    with connect() as client:
        change_each(
            kernels,
            lambda reference: client.begin(kernel_pb2.GetKernelRequest(kernel=reference), kernel_pb2.GetKernelResponse),
            lambda found: found.kernel.id,
            lambda kernel: client.begin(kernel_pb2.DeleteKernelRequest(kernel=kernel), kernel_pb2.DeleteKernelResponse),
            "Deleting",
            json=json,
        )


@app.command(epilog=examples("ingle kernel prune --dry-run", "ingle kernel prune"))
def prune(dry_run: DryRun = False, json: AsJson = False) -> None:
    """Delete kernels without a name that no VM uses: their names were given to newer ones."""
    with connect() as client:
        request = kernel_pb2.PruneKernelsRequest(dry_run=dry_run)
        pruned = client.call(request, kernel_pb2.PruneKernelsResponse).kernels
    if json:
        print_json([to_json(kernel) for kernel in pruned])
        return
    say(_table(pruned))
    size = format_size(sum(kernel.size_bytes for kernel in pruned))
    tell(f"{'would free' if dry_run else 'freed'} {size}")


def _table(kernels: Sequence[kernel_pb2.Kernel]) -> str:
    return table(
        ("NAME", "ID", "RELEASE", "SIZE", "MODULES", "AGE"),
        (
            (
                " ".join(kernel.names) or NAMELESS,
                kernel.id[:12],
                kernel.release,
                format_size(kernel.size_bytes),
                str(kernel.modules),
                format_age(kernel.created_at.ToDatetime(UTC)),
            )
            for kernel in kernels
        ),
    )


def _tell(kernel: kernel_pb2.Kernel, *, json: bool) -> None:
    if json:
        print_json(to_json(kernel))
    else:
        say(_table([kernel]))
