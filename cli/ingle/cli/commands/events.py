"""`ingle events`: what has happened, and what happens."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ingle.cli import signals
from ingle.cli.client import connect
from ingle.cli.errors import CliError
from ingle.cli.jsonable import enum_name, shape_of, to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.listing import AllUsers, Format, Formatted, formatted_each
from ingle.cli.options import AsJson, time_option
from ingle.cli.output import say, tell
from ingle.cli.printable import one_line
from ingle.v1 import event_pb2

app = new_app()

_KINDS = event_pb2.EventKind.DESCRIPTOR
_CAUSES = event_pb2.StopCause.DESCRIPTOR
_RESOURCES = event_pb2.ResourceKind.DESCRIPTOR
_SHOWN_ID = 12
_LONGEST_LABEL = 40


@app.command(
    epilog=examples(
        "ingle events",
        "ingle events --since 10m --no-follow",
        "ingle events -f kind=vm_stopped -f kind=vm_failed --json",
        "ingle events -f label=team=web -f vm=web",
        "ingle events --no-follow --after 0 --format '{{.time}} {{.kind}} {{.name}}'",
        "ingle events --after 1234 --json     # behind the event with that cursor",
    )
)
def events(
    since: Annotated[datetime | None, time_option("--since", "From then on; a duration is one before now.")] = None,
    until: Annotated[datetime | None, time_option("--until", "Up to then, and leave.")] = None,
    after: Annotated[
        int | None, typer.Option("--after", metavar="CURSOR", min=0, help="Behind that event; 0: all that is kept.")
    ] = None,
    filters: Annotated[
        list[str],
        typer.Option(
            "--filter",
            "-f",
            metavar="SUBJECT=VALUE",
            help="kind=, type=vm, vm=NAME, snapshot=, image=, kernel= or label=KEY[=VALUE] (repeatable).",
        ),
    ] = [],  # noqa: B006 - Typer copies it
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for more, which is the default, or leave at the end.")
    ] = True,
    all_users: AllUsers = False,
    format_: Format = "",
    json: AsJson = False,
) -> None:
    """Tell what happens to VMs, snapshots, images and kernels.

    From now on, unless told since when; as JSON, or by a template, a line each. Of what has happened the last ten
    thousand events are kept, for 30 days."""
    formatted = formatted_each(format_, lambda: shape_of(event_pb2.Event.DESCRIPTOR), json=json)
    request = event_pb2.WatchEventsRequest(no_follow=not follow, after=after, all_users=all_users)
    if since is not None and after is not None:
        raise typer.BadParameter("it does not go with --after: each says where to begin", param_hint="'--since'")
    for field, given in (("since", since), ("until", until)):
        if given is not None:
            getattr(request, field).FromDatetime(given)
    _add_filters(request, filters)
    if follow:
        signals.end_with_the_reader()
    cursor = 0
    with connect() as client:
        try:
            for response in client.begin(request, event_pb2.WatchEventsResponse):
                cursor = response.cursor
                if response.HasField("event"):
                    _tell(response.event, formatted)
        except CliError:
            if cursor:
                tell(f"to go on from here: ingle events --after {cursor}")
            raise


def _tell(event: event_pb2.Event, formatted: Formatted | None) -> None:
    if formatted is None:
        say(_line(event))
    else:
        formatted.show([to_json(event)])


def _line(event: event_pb2.Event) -> str:
    time = event.time.ToDatetime(UTC).astimezone()
    facts = dict(sorted(event.attributes.items()))  # a map comes in any order
    if event.stop_cause:
        facts = {"cause": enum_name(_CAUSES, event.stop_cause), **facts}
    if event.message:
        facts["message"] = event.message
    if event.op_id:
        facts["op"] = event.op_id
    told = ", ".join(f"{name}={value}" for name, value in facts.items())
    who = " ".join(filter(None, (event.name, event.resource_id[:_SHOWN_ID])))
    what = enum_name(_KINDS, event.kind)
    return one_line(
        f"{time:%F %T}.{time.microsecond // 1000:03}  {what:<14} {who}{f' ({told})' if told else ''}"
    ).rstrip()


def _add_filters(request: event_pb2.WatchEventsRequest, filters: Iterable[str]) -> None:
    kinds, resources = _numbers(_KINDS), _numbers(_RESOURCES)
    named = {name: number for name, number in resources.items() if name != "server"}
    for text in filters:
        subject, _, value = text.partition("=")
        if subject == "kind" and value in kinds:
            request.kinds.append(kinds[value])
        elif subject == "type" and value in resources:
            request.resource_kinds.append(resources[value])
        elif subject in named and value and not request.resource:
            request.resource_kinds.append(named[subject])
            request.resource = value
        elif subject == "label" and value:
            request.labels.append(value)
        else:
            raise typer.BadParameter(_allowed(text, kinds, resources), param_hint="'--filter' / '-f'")


def _allowed(text: str, kinds: Iterable[str], resources: Iterable[str]) -> str:
    return (
        f"{text[:_LONGEST_LABEL]!r}: give label=KEY, label=KEY=VALUE, vm=, snapshot=, image= or kernel= (one of them, "
        f"once) with a name or a whole id, type= with one of {', '.join(resources)}, or kind= with one of "
        f"{', '.join(kinds)}"
    )


def _numbers(enum: Any) -> Mapping[str, Any]:
    return {enum_name(enum, value.number): value.number for value in enum.values if value.number}
