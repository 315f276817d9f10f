"""`ingle engine`: what VMs run in."""

import re
from typing import Annotated

import typer

from ingle.cli import paths
from ingle.cli.client import connect
from ingle.cli.errors import failed
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import Column, Filter, Listing, ListOptions
from ingle.cli.output import tell
from ingle.cli.spread import spread
from ingle.v1 import system_pb2

app = new_app(
    "What VMs run in.",
    first=("ingle engine list", "sudo ingle engine install firecracker --from firecracker.tgz --sha256 $SHA256"),
)

_ELSEWHERE = {"qemu": "sudo apt install qemu-system-x86"}
_INSTALLED_HERE = "firecracker"
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")

_ENGINES = Listing(
    message=system_pb2.EngineInfo,
    columns=(
        Column("ENGINE", lambda engine: engine.name),
        Column("VERSION", lambda engine: engine.version),
        Column("PROBLEM", lambda engine: engine.problem),
    ),
    name=lambda engine: engine.name,
    filters={"name": Filter(lambda engine: [engine.name])},
)


@app.command(name="list", epilog=examples("ingle engine list", "ingle engine list -q"))
@spread(ListOptions)
def list_engines(options: ListOptions) -> None:
    """The engines that the server knows, in the order in which it prefers them; a VM has one for life.

    Filters: name."""
    chosen = _ENGINES.chosen(options)
    with connect() as client:
        info = client.call(system_pb2.GetInfoRequest(), system_pb2.GetInfoResponse)
    chosen.show(info.engines)


@app.command(
    epilog=examples("sudo ingle engine install firecracker --from firecracker.tgz --sha256 $SHA256"),
)
def install(
    name: Annotated[str, typer.Argument(metavar="NAME", help="firecracker.")],
    source: Annotated[
        str, typer.Option("--from", metavar="FILE|URL", help="A release: its archive, or the program alone.")
    ],
    sha256: Annotated[str, typer.Option("--sha256", metavar="HEX", help="Of that file, as its release tells it.")],
) -> None:
    """Put a release of an engine where the server finds it, and have the configuration say so.

    What has another hash is not looked into. VMs that run keep the program that they have."""
    if name != _INSTALLED_HERE:
        remedy = _ELSEWHERE.get(name, f"ingle engine install {_INSTALLED_HERE} --help")
        raise failed("INVALID_ARGUMENT", f"engine {name[:100]!r}: {_INSTALLED_HERE} can be installed", remedy)
    if not _SHA256.fullmatch(sha256):
        wrong = f"--sha256 {sha256[:100]!r}: 64 hexadecimal digits are allowed"
        raise failed("INVALID_ARGUMENT", wrong, "the page of the release tells it")
    from ingle.cli import configuring, engine_program  # noqa: PLC0415 - urllib and tarfile are slow

    with engine_program.release(source, sha256) as file:
        program, version = engine_program.install(file, name, paths.engines_directory())
    tell(f"{program} is {name} {version}")
    configuring.change({name: str(program)})
