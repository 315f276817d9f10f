"""Events, and who wants to be told which."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from ingle.api_server.model.caller import Caller
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.event import Event, EventKind, StopCause
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.operations.watch_events import Position, Wish
from ingle.api_server.rpc.convert.times import time, timestamp
from ingle.api_server.rpc.convert.vms import wanted_labels
from ingle.v1 import event_pb2

_T = TypeVar("_T")
_N = TypeVar("_N", bound=int)

_KINDS: Mapping[EventKind, event_pb2.EventKind.ValueType] = {
    kind: event_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}") for kind in EventKind
}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}
_CAUSES: Mapping[StopCause | None, event_pb2.StopCause.ValueType] = {
    None: event_pb2.STOP_CAUSE_UNSPECIFIED,
    **{cause: event_pb2.StopCause.Value(f"STOP_CAUSE_{cause.name}") for cause in StopCause},
}
_RESOURCES: Mapping[ResourceKind | None, event_pb2.ResourceKind.ValueType] = {
    None: event_pb2.RESOURCE_KIND_SERVER,
    **{kind: event_pb2.ResourceKind.Value(f"RESOURCE_KIND_{kind.name}") for kind in ResourceKind if kind.told},
}
_RESOURCES_BACK = {number: kind for kind, number in _RESOURCES.items()}


def watch_wish(request: event_pb2.WatchEventsRequest, caller: Caller) -> Wish:
    """Raises Conflict(NOT_ADMIN), and InvalidArgument for kinds that we do not know, for times that can't be, and for a
    label with two values."""
    if request.HasField("after") and request.HasField("since"):
        raise InvalidArgument("after and since: each says where to begin, and one is enough", field="since")
    if request.all_users:
        caller.check_all_users()
    return Wish(
        owner=None if request.all_users else caller.uid,
        after=request.after if request.HasField("after") else None,
        since=time(request.since, "since") if request.HasField("since") else None,
        until=time(request.until, "until") if request.HasField("until") else None,
        follow=not request.no_follow,
        kinds=_known(request.kinds, _KINDS_BACK, "kinds"),
        resource_kinds=_known(request.resource_kinds, _RESOURCES_BACK, "resource_kinds"),
        resource=request.resource,
        labels=wanted_labels(request.labels),
    )


def watch_answer(position: Position) -> event_pb2.WatchEventsResponse:
    """Where a watcher is, and the event that it is told."""
    event = None if position.event is None else _event(position.event)
    return event_pb2.WatchEventsResponse(event=event, cursor=position.cursor)


def _event(event: Event) -> event_pb2.Event:
    what = event.what
    resource: Resource | None = what.resource
    return event_pb2.Event(
        cursor=event.cursor,
        time=timestamp(event.time),
        kind=_KINDS[what.kind],
        resource_kind=_RESOURCES[None if resource is None else resource.kind],
        resource_id="" if resource is None else resource.id,
        name=what.name,
        owner=what.owner,
        labels=what.labels,
        op_id=what.op_id,
        stop_cause=_CAUSES[what.cause],
        message=what.message,
        attributes=what.attributes,
    )


def _known(numbers: Iterable[_N], known: Mapping[_N, _T], field: str) -> frozenset[_T]:
    wanted = set(numbers)
    if unknown := sorted(wanted - known.keys()):
        raise InvalidArgument(f"{field} {unknown[0]}: this server knows no such kind", field=field)
    return frozenset(known[number] for number in wanted)
