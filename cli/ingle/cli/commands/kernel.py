"""`ingle kernel`: guest kernels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ingle.cli.client import connect
from ingle.cli.kinds import Kind
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import Column
from ingle.cli.options import AsJson
from ingle.cli.quantities import format_size
from ingle.cli.stages import Stages
from ingle.cli.uploads import Upload
from ingle.v1 import kernel_pb2

app = new_app(
    "Kernels that VMs boot.",
    first=("ingle kernel list", "ingle kernel pull debian", "ingle kernel import --name mine ./vmlinux"),
)

_kernels = Kind[kernel_pb2.Kernel](
    noun="kernel",
    contract=kernel_pb2,
    one="debian",
    columns=(
        Column("RELEASE", lambda kernel: kernel.release),
        Column("SIZE", lambda kernel: format_size(kernel.size_bytes)),
        Column("MODULES", lambda kernel: str(kernel.modules)),
    ),
    details=lambda kernel: (
        ("release", kernel.release),
        ("size", format_size(kernel.size_bytes)),
        ("modules", str(kernel.modules)),
    ),
    taken_bytes=lambda kernel: kernel.size_bytes,
)
_kernels.add_commands(app)


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
        raise typer.BadParameter(
            f"{modules} is not a directory: give a lib/modules/RELEASE directory", param_hint="'--modules'"
        )
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
    _kernels.tell(kernel, json=json)
