"""What a person types for a VM, an image, a kernel or a snapshot may be the beginning of its id. The server takes that
from who only looks, lest a change that is sent twice meets another; so it is looked up here, once, and the whole id is
sent.

USER/NAME is the VM or snapshot of another user, for admins; the server takes UID/NAME."""

import re
from collections.abc import Callable, Iterator, Mapping

from google.protobuf.message import Message

_BEGINS_AN_ID: Mapping[str, "re.Pattern[str]"] = {
    "vm": re.compile(r"[0-9a-f]{1,11}"),
    "image": re.compile(r"[0-9a-f]{1,63}"),
    "kernel": re.compile(r"[0-9a-f]{1,63}"),
    "snapshot": re.compile(r"[0-9a-f]{1,11}"),
}
_OWNED = ("vm", "snapshot")
_INSIDE = ("start", "spec")
_LOOKS_UP = {"GetVmRequest", "GetImageRequest", "GetKernelRequest", "GetSnapshotRequest"}

LookUp = Callable[[str, str], str]
"""The id for a kind (vm, image, kernel, snapshot) and what was typed; that itself when it is a name, or nothing."""


class References:
    """Those of one command, each looked up once."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._known: dict[tuple[str, str], str] = {}

    def complete(self, request: Message) -> None:
        """Put whole ids into `request`, also below its `start` or `spec`. A name that no id can begin with costs
        nothing."""
        for message in _with_references(request):
            for kind in _OWNED:
                if kind in message.DESCRIPTOR.fields_by_name and "/" in getattr(message, kind):
                    from ingle.cli.owners import with_uid  # noqa: PLC0415 - few commands need it

                    setattr(message, kind, with_uid(getattr(message, kind)))
        if request.DESCRIPTOR.name in _LOOKS_UP:
            return
        for message in _with_references(request):
            for kind, begins_an_id in _BEGINS_AN_ID.items():
                if kind in message.DESCRIPTOR.fields_by_name and begins_an_id.fullmatch(getattr(message, kind)):
                    setattr(message, kind, self._id(kind, getattr(message, kind)))

    def _id(self, kind: str, typed: str) -> str:
        if (kind, typed) not in self._known:
            self._known[kind, typed] = self._look_up(kind, typed)
        return self._known[kind, typed]


def _with_references(request: Message) -> Iterator[Message]:
    yield request
    for name in _INSIDE:
        if name in request.DESCRIPTOR.fields_by_name and request.HasField(name):
            yield getattr(request, name)
