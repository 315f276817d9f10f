"""Times and filters of `ingle events`, as people type them."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from ingle.cli.commands.events import _add_filters, _line
from ingle.cli.quantities import parse_time
from ingle.v1 import event_pb2


@pytest.mark.parametrize(
    ("text", "ago"), [("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 7 * 86400), ("30", 30), ("0s", 0)]
)
def test_a_duration_is_one_before_now(text: str, ago: int) -> None:
    before = datetime.now(UTC)
    told = parse_time(text)
    assert before <= told + timedelta(seconds=ago) <= datetime.now(UTC)


@pytest.mark.parametrize("text", ["2026-11-29T21:30:00Z", "2026-11-29T22:30:00+01:00", "1795987800"])
def test_a_time_may_be_written_in_several_ways(text: str) -> None:
    assert parse_time(text) == datetime(2026, 11, 29, 21, 30, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "10 minutes", "99999999999999d", "2026-13-01", "-5m"])
def test_anything_else_is_answered_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="2h or 7d"):
        parse_time(text)


def test_what_is_told_of_an_event_is_always_in_the_same_order() -> None:
    names = ["kernel", "engine", "zone", "image", "address"]
    told = [
        _line(event_pb2.Event(kind=event_pb2.EVENT_KIND_VM_CREATED, attributes=dict.fromkeys(order, "x"), op_id="op-1"))
        for order in (names, names[::-1])
    ]
    assert told[0] == told[1]
    assert told[0].endswith("(address=x, engine=x, image=x, kernel=x, zone=x, op=op-1)")


def test_filters_become_fields_of_the_request() -> None:
    request = event_pb2.WatchEventsRequest()
    _add_filters(request, ["kind=vm_stopped", "kind=vm_failed", "vm=web", "label=team=web", "label=x", "type=server"])
    assert request == event_pb2.WatchEventsRequest(
        kinds=[event_pb2.EVENT_KIND_VM_STOPPED, event_pb2.EVENT_KIND_VM_FAILED],
        resource_kinds=[event_pb2.RESOURCE_KIND_VM, event_pb2.RESOURCE_KIND_SERVER],
        resource="web",
        labels=["team=web", "x"],
    )


@pytest.mark.parametrize("text", ["web", "kind=nothing", "vm=", "server=x", "state=running"])
def test_a_filter_that_means_nothing_is_answered_with_those_that_do(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="kind= with one of server_started, vm_created"):
        _add_filters(event_pb2.WatchEventsRequest(), [text])
    with pytest.raises(typer.BadParameter, match="once"):
        _add_filters(event_pb2.WatchEventsRequest(), ["vm=a", "image=b"])
