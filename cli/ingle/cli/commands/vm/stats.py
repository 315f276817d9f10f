"""`ingle vm stats`: what VMs take of the host, and how their guests feel; once, or again and again."""

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, cast

import typer
from google.protobuf.duration_pb2 import Duration

from ingle.cli import completion
from ingle.cli.client import Call, Client, connect
from ingle.cli.commands.vm.inspect import VMS
from ingle.cli.errors import EXIT_SIGNAL, CliError, Failure
from ingle.cli.jsonable import VALUE, Shape, shape_of, to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import Chosen, Filters, Format, Formatted, ListOptions, formatted_all, formatted_each
from ingle.cli.options import AsJson, as_option
from ingle.cli.output import is_terminal, say, table, tell_failure
from ingle.cli.quantities import format_seconds, format_size, parse_duration
from ingle.v1 import vm_pb2

app = new_app()

_SIGINT = 2
_LEAST_INTERVAL = timedelta(milliseconds=100)
_NEW_SCREEN = "\x1b[H\x1b[J"

_AFTER_CPU = ("RESIDENT", "DISK", "GUEST MEMORY", "GUEST DISK", "NET IN/OUT", "LOAD", "PROCESSES", "IDLE", "UPTIME")


def _interval(text: str) -> timedelta:
    interval = parse_duration(text)
    if interval < _LEAST_INTERVAL:
        raise ValueError(f"{text!r} is too short: at least {_LEAST_INTERVAL.total_seconds():g}s")
    return interval


@app.command(
    epilog=examples(
        "ingle vm stats",
        "ingle vm stats --watch",
        "ingle vm stats --filter label=team=shop --format '{{.reference}} {{.vmm.resident_bytes}}'",
        "ingle vm stats --json web",
        "ingle vm stats -w --interval 10s web db",
    )
)
def stats(
    vms: Annotated[
        list[str],
        typer.Argument(metavar="[VM]...", help="All that run, unless given.", autocompletion=completion.vm_names),
    ] = [],  # noqa: B006 - Typer copies it
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    interval: Annotated[
        timedelta,
        typer.Option("--interval", metavar="DURATION", parser=as_option(_interval), help="Between two looks."),
    ] = "2s",  # type: ignore[assignment] # a default is parsed as well
    filters: Filters = [],  # noqa: B006 - Typer copies it
    format_: Format = "",
    json: AsJson = False,
) -> None:
    """What VMs take of the host, and how their guests feel.

    Filters, of VMs that are not named: name, label, image, network.

    CPU TIME and RESIDENT are the host's; with --watch CPU is how busy the guest's processors were since the last look
    (100% is one of them). IDLE: since a command, a session, a forwarded connection or a file was last at work. With
    --watch --json each line is an object, one a VM and look; a template is a line each, too."""
    if vms and filters:
        raise typer.BadParameter("it does not go with names of VMs", param_hint="'--filter' / '-f'")
    choice = formatted_each if watch else formatted_all
    formatted = choice(format_, lambda: _shape(watch=watch), json=json)
    subjects = _Subjects(list(dict.fromkeys(vms)), VMS.chosen(ListOptions(filter=filters)))
    with connect() as client:
        if watch:
            _watch(client, subjects, interval.total_seconds(), formatted)
            return
        calls = _begin(client, subjects.now(client))
        answers = [(name, call.result()) for name, call in calls]
    if formatted is not None:
        formatted.show([{"reference": name, **to_json(answer)} for name, answer in answers])
    else:
        rows = ((name, _cpu_time(answer), *_row(answer)) for name, answer in answers)
        say(table(("VM", "CPU TIME", *_AFTER_CPU), rows))


def _shape(*, watch: bool) -> Shape:
    """Of what is told of a VM as JSON."""
    own = {"reference": VALUE, **({"time": VALUE, "cpu_percent": VALUE} if watch else {})}
    return {**own, **cast("Mapping[str, Shape]", shape_of(vm_pb2.GetVmStatsResponse.DESCRIPTOR))}


@dataclass(frozen=True)
class _Subjects:
    """Whose statistics are wanted: of VMs that were named, or of all that run and that the filters leave."""

    named: list[str]
    chosen: Chosen[vm_pb2.Vm]

    def now(self, client: Client) -> list[str]:
        """Their names."""
        if self.named:
            return self.named
        vms = client.all(self.chosen.asking(vm_pb2.ListVmsRequest()), vm_pb2.ListVmsResponse).vms
        return [vm.name for vm in self.chosen.wanted_of(vms) if vm.state == vm_pb2.VM_STATE_RUNNING]


@dataclass(frozen=True)
class _Look:
    """What a VM answered, and when."""

    time: datetime
    answer: vm_pb2.GetVmStatsResponse


def _watch(client: Client, subjects: _Subjects, seconds: float, formatted: Formatted | None) -> None:
    names = subjects.named
    show = _draw if is_terminal(sys.stdout) else _Lines().show
    if formatted is not None:
        show = partial(_print_objects, formatted)
    before: Mapping[str, _Look] = {}
    told: set[str] = set()
    try:
        while True:
            began = time.monotonic()
            now, failures = _look(client, subjects)
            if names and not now:
                raise CliError(*failures)
            for failure in failures:
                if names and failure.subject not in told:
                    told.add(failure.subject)
                    tell_failure(failure, as_json=formatted is not None and formatted.is_json)
            show(now, before)
            before = now
            time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_SIGNAL + _SIGINT) from None


def _look(client: Client, subjects: _Subjects) -> tuple[dict[str, _Look], list[Failure]]:
    """The answers by name, and what failed. A VM that ends meanwhile is no failure unless it was named."""
    answers, failures = {}, []
    for name, call in _begin(client, subjects.now(client)):
        try:
            answers[name] = _Look(datetime.now(UTC), call.result())
        except CliError as error:
            if client.connection.lost:
                raise
            failures.append(error.about(name))
    return answers, failures


def _begin(client: Client, names: Iterable[str]) -> list[tuple[str, Call[vm_pb2.GetVmStatsResponse]]]:
    return [(name, client.begin(vm_pb2.GetVmStatsRequest(vm=name), vm_pb2.GetVmStatsResponse)) for name in names]


def _print_objects(formatted: Formatted, now: Mapping[str, _Look], before: Mapping[str, _Look]) -> None:
    for name, look in now.items():
        time_text = look.time.isoformat().replace("+00:00", "Z")
        percent = _cpu_percent(look, before.get(name))
        formatted.show([{"reference": name, "time": time_text, "cpu_percent": percent, **to_json(look.answer)}])


def _draw(now: Mapping[str, _Look], before: Mapping[str, _Look]) -> None:
    sys.stdout.write(_NEW_SCREEN)
    say(_watch_table(now, before))


class _Lines:
    """A line a VM and look, below headings that come once."""

    def __init__(self) -> None:
        self._headed = False

    def show(self, now: Mapping[str, _Look], before: Mapping[str, _Look]) -> None:
        lines = _watch_table(now, before).splitlines()[self._headed :]
        self._headed = True
        if lines:
            say("\n".join(lines))


def _watch_table(now: Mapping[str, _Look], before: Mapping[str, _Look]) -> str:
    percents = {name: _cpu_percent(look, before.get(name)) for name, look in now.items()}
    rows = ((name, _percent_text(percents[name]), *_row(look.answer)) for name, look in now.items())
    return table(("VM", "CPU", *_AFTER_CPU), rows)


def _cpu_percent(look: _Look, before: _Look | None) -> float | None:
    """How busy the guest's processors were in between, 100 for each; None when nobody can tell: it booted meanwhile."""
    if before is None:
        return None
    guest, former = look.answer.guest, before.answer.guest
    total = _seconds(guest.cpu_total) - _seconds(former.cpu_total)
    idle = _seconds(guest.cpu_idle) - _seconds(former.cpu_idle)
    if total <= 0 or not 0 <= idle <= total:
        return None
    return round((total - idle) / total * guest.cpus * 100, 1)


def _percent_text(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.1f}%"


def _cpu_time(answer: vm_pb2.GetVmStatsResponse) -> str:
    return format_seconds(_seconds(answer.vmm.cpu_time))


def _row(answer: vm_pb2.GetVmStatsResponse) -> tuple[str, ...]:
    vmm, guest = answer.vmm, answer.guest
    host = (format_size(vmm.resident_bytes), _disk(answer))
    if not answer.HasField("guest"):
        return (*host, *["-"] * (len(_AFTER_CPU) - len(host)))
    network = [each for each in guest.interfaces if each.name != "lo"]
    received, sent = (sum(each.received_bytes for each in network), sum(each.sent_bytes for each in network))
    return (
        *host,
        _used(guest.memory_total_bytes, guest.memory_available_bytes),
        _used(guest.disk_total_bytes, guest.disk_available_bytes),
        f"{format_size(received)}/{format_size(sent)}",
        f"{guest.load_1m:.2f}",
        str(guest.processes),
        format_seconds(_seconds(answer.activity.idle)) if answer.HasField("activity") else "-",
        format_seconds(_seconds(guest.uptime)),
    )


def _disk(answer: vm_pb2.GetVmStatsResponse) -> str:
    """What it takes, and where it is lost when the host is full, how much room there is."""
    size = format_size(answer.vmm.disk_allocated_bytes)
    if not answer.HasField("disk_changes"):
        return size
    changes = answer.disk_changes
    return f"{size}, lost" if changes.overflowed else f"{size}, room {format_size(changes.room_bytes)}"


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _used(total: int, available: int) -> str:
    return f"{format_size(total - available)} of {format_size(total)}"
