"""`ingle kernel`: guest kernels."""

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


def _shared_disk(kernel: kernel_pb2.Kernel) -> str:
    """What guests find of a kernel's modules, and of one without what there is to do."""
    if kernel.disk_modules:
        return f"{kernel.disk_modules} modules, at /lib/modules/{kernel.release} of every guest"
    if not kernel.modules:
        return "none: it came without modules"
    if kernel.source in kernel.names:
        return f"none: to have all modules in new VMs, ingle kernel pull --refresh {kernel.source}"
    return "none: to have all modules in new VMs, import it again with --modules, if it knows squashfs"


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
        ("shared disk", _shared_disk(kernel)),
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
    file: Annotated[str, typer.Argument(metavar="FILE", help="A vmlinux or bzImage; or a tar, see below.")],
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="What to call it.")],
    modules: Annotated[
        Path | None, typer.Option("--modules", metavar="DIR", help="Its lib/modules/RELEASE; none if all is built in.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Take a kernel of one's own.

    It and its modules are read with your rights, and sent to the server. Guests have all of them at /lib/modules.

    FILE may as well be a tar archive that holds the kernel as `kernel`, and what is in its lib/modules/RELEASE below
    `modules/`; "-" reads it from stdin."""
    from ingle.cli.kernel_modules import modules_of  # noqa: PLC0415 - this command alone
    from ingle.cli.sending import described, opened, send_archive, send_file, sent  # noqa: PLC0415 - tarfile is slow

    start = kernel_pb2.ImportKernelStart(name=name, source=described(file))
    if modules is not None and not modules.is_dir():
        raise typer.BadParameter(
            f"{modules} is not a directory: give a lib/modules/RELEASE directory", param_hint="'--modules'"
        )
    with opened(file) as descriptor, connect() as client, Stages(lines=False, steps=True) as stages:
        request = kernel_pb2.ImportKernelRequest(start=start)
        upload = Upload(
            client, client.begin(request, kernel_pb2.ImportKernelResponse, last=False), kernel_pb2.ImportKernelRequest
        )

        def send(upload: Upload[kernel_pb2.ImportKernelResponse]) -> None:
            if modules is None:
                send_file(descriptor, start.source, upload, stages)
            else:
                sources = [(Path(file).resolve(), "kernel"), *modules_of(modules.resolve())]
                send_archive(sources, f"{start.source} and {modules}", upload, stages)

        kernel = sent(upload, send, f"Unpacking {start.source}", stages).kernel
    _kernels.tell(kernel, json=json)
