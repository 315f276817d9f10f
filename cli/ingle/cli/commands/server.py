"""`ingle server`: the API server that commands talk to. A user's own is started by them."""

import os
import time
from collections import deque
from datetime import UTC
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ingle.cli import paths, signals
from ingle.cli.client import Client, connect, connect_if_running
from ingle.cli.errors import EXIT_FAILED, SERVER_UNREACHABLE, CliError, failed
from ingle.cli.jsonable import Json, to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, Count
from ingle.cli.output import ConsoleOutput, fields, print_json, say
from ingle.cli.quantities import format_size
from ingle.cli.stages import Stages
from ingle.v1 import system_pb2

app = new_app(
    "The API server of this user; started when it is needed.",
    first=("ingle server status", "ingle server logs -f", "ingle server restart"),
)

_STOP_LIMIT_SECONDS = 30.0
_POLL_SECONDS = 0.02
_FOLLOW_SECONDS = 0.2


@app.command(epilog=examples("ingle server start"))
def start(json: AsJson = False) -> None:
    """Start it, unless it runs; answers when it listens."""
    with Stages(lines=False) as stages:
        stages.under_way("Starting the server")
        client = connect()
    with client:
        _tell(_info(client), json=json)


@app.command(epilog=examples("ingle server stop"))
def stop(json: AsJson = False) -> None:
    """Stop it: calls under way are cancelled and undone, VMs go on running."""
    pid = _stop()
    if pid is None:
        _tell_not_running(json=json)
    elif json:
        print_json({"running": False, "pid": pid})
    else:
        say(f"stopped (pid {pid})")


@app.command(epilog=examples("ingle server restart", "INGLE_VCPUS=2 ingle server restart"))
def restart(json: AsJson = False) -> None:
    """Stop it, and start one with this environment; VMs go on running.

    The configuration file is read anew for each VM that is made, without this."""
    if paths.api_address().of_system:
        raise failed("WRONG_STATE", "systemd runs the system's server", "sudo ingle system restart")
    _stop()
    start(json=json)


def _stop() -> int | None:
    """Its pid; None when none ran."""
    client = connect_if_running()
    if client is None:
        return None
    with Stages(lines=False) as stages:
        stages.under_way("Stopping the server")
        with client:  # and no longer: a server that stops waits for its clients to leave
            pid = _info(client).pid
            try:
                client.call(system_pb2.ShutdownRequest(), system_pb2.ShutdownResponse)
            except CliError as error:
                if error.failures[0].reason != SERVER_UNREACHABLE:  # it may be gone before its answer gets through
                    raise
        _wait_until_gone(pid)
    return pid


@app.command(epilog=examples("ingle server status", "ingle server status --json"))
def status(json: AsJson = False) -> None:
    """What it is and where it keeps things; exit code 1 when it does not run. Starts nothing."""
    client = connect_if_running()
    if client is None:
        _tell_not_running(json=json)
        raise typer.Exit(EXIT_FAILED)
    with client:
        _tell(_info(client), json=json)


@app.command(epilog=examples("ingle server logs", "ingle server logs -f --tail 50"))
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", metavar="LINES", parser=Count, help="Only the last lines.")
    ] = 100,
) -> None:
    """What the server says; every line has the op_id that errors show."""
    if paths.api_address().of_system:
        raise failed("WRONG_STATE", "systemd keeps the log of the system's server", "journalctl -u ingle")
    log = paths.server_log()
    if not log.exists():
        raise failed(
            "INVALID_ARGUMENT", f"there is no {log}: no server was started on demand yet", "ingle server start"
        )
    if follow:
        signals.end_with_the_reader()
    _print_log(log, tail, follow=follow)


def _print_log(log: Path, tail: int, *, follow: bool) -> None:
    output = ConsoleOutput()
    file = paths.open_log(log, "rb")
    try:
        lines = deque(file, maxlen=tail)
        if len(lines) < tail and (former := paths.former_log(log)).exists():
            with paths.open_log(former, "rb") as before:
                lines.extendleft(reversed(deque(before, maxlen=tail - len(lines))))
        for line in lines:
            output.write(line)
        while follow:
            time.sleep(_FOLLOW_SECONDS)
            replaced = not _is_at(file, log)  # asked first: what comes after is read below
            output.write(file.read())
            if replaced:
                file.close()
                file = paths.open_log(log, "rb")
    finally:
        file.close()


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether the file has not given its place to a new one; while there is none, it has not."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return True


def _info(client: Client) -> system_pb2.GetInfoResponse:
    return client.call(system_pb2.GetInfoRequest(), system_pb2.GetInfoResponse)


def _wait_until_gone(pid: int) -> None:
    """Until a new server could start: the old one neither listens nor lives."""
    deadline = time.monotonic() + _STOP_LIMIT_SECONDS
    while time.monotonic() < deadline:
        if not _lives(pid):
            return
        time.sleep(_POLL_SECONDS)
    raise failed(
        SERVER_UNREACHABLE, f"the server (pid {pid}) still runs after {_STOP_LIMIT_SECONDS:g} s", f"kill {pid}"
    )


def _lives(pid: int) -> bool:
    """Whether it runs: what ended, and nobody waited for (a container's first process may not), does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _tell(info: system_pb2.GetInfoResponse, *, json: bool) -> None:
    address = paths.api_address().path
    if json:
        print_json({"running": True, "socket": str(address), **to_json(info)})
        return
    engines = (
        (f"engine {engine.name}", engine.version if not engine.problem else f"not usable: {engine.problem}")
        for engine in info.engines
    )
    say(
        fields(
            (
                ("server", f"{info.version}, pid {info.pid}"),
                ("since", f"{info.started_at.ToDatetime(UTC):%F %T} UTC"),
                ("socket", info.socket or str(address)),
                ("state", info.state_directory),
                ("cache", info.cache_directory),
                ("log", "journalctl -u ingle" if info.system else str(paths.server_log())),
                ("host", f"{info.host_vcpus} vCPUs, {format_size(info.host_memory_bytes)} memory"),
                *engines,
            )
        )
    )


def _tell_not_running(*, json: bool) -> None:
    address: Json = str(paths.api_address().path)
    if json:
        print_json({"running": False, "socket": address})
    else:
        say(f"not running ({address})")
