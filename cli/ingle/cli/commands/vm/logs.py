"""`ingle vm logs`: what a guest's console said, or its VMM."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ingle.cli import signals
from ingle.cli.client import connect
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, Count, VmReference, time_option
from ingle.cli.output import ConsoleOutput
from ingle.v1 import vm_pb2

app = new_app()


@app.command(
    epilog=examples(
        "ingle vm logs web",
        "ingle vm logs -f --tail 20 web",
        "ingle vm logs -t --since 10m web",
        "ingle vm logs --vmm web",
    )
)
def logs(
    vm: VmReference,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    vmm: Annotated[bool, typer.Option("--vmm", help="The VMM's stderr instead of the guest's console.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="LINES", parser=Count, help="Only the last lines.")
    ] = None,
    since: Annotated[datetime | None, time_option("--since", "From then on; a duration is one before now.")] = None,
    until: Annotated[datetime | None, time_option("--until", "Up to then; with --follow, leave then.")] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Begin each line with the time at which it was seen, in UTC.")
    ] = False,
    json: AsJson = False,
) -> None:
    """The guest's serial console: byte for byte, or on a terminal as text that can't drive it.

    Times are when the server saw a line, about a second after it was written at most."""
    request = vm_pb2.StreamVmLogsRequest(
        vm=vm,
        source=vm_pb2.LOG_SOURCE_VMM if vmm else vm_pb2.LOG_SOURCE_CONSOLE,
        follow=follow,
        tail_lines=tail,
    )
    if since is not None:
        request.since.FromDatetime(since)
    if until is not None:
        request.until.FromDatetime(until)
    if follow:
        signals.end_with_the_reader()
    with connect() as client:
        output = ConsoleOutput()
        stamper = _Stamper()
        for part in client.begin(request, vm_pb2.StreamVmLogsResponse):
            output.write(stamper.stamped(part) if timestamps else part.data)
        output.end()


class _Stamper:
    """Puts the time before each line of what comes in pieces."""

    def __init__(self) -> None:
        self._in_line = False

    def stamped(self, part: vm_pb2.StreamVmLogsResponse) -> bytes:
        time = part.time.ToDatetime(UTC)
        stamp = f"{time:%FT%T}.{time.microsecond // 1000:03}Z ".encode()
        begin = b"" if self._in_line else stamp
        self._in_line = not part.data.endswith(b"\n")
        lines = part.data if self._in_line else part.data[:-1]
        return begin + lines.replace(b"\n", b"\n" + stamp) + (b"" if self._in_line else b"\n")
