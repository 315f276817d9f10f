"""Who makes a call, and what of theirs they mean by what they say in it."""

from typing import Any, TypeAlias

import grpc

from ingle.api_server.gate import identity_of
from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.errors import Conflict, Reason

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def caller(context: Context) -> Caller:
    """Who calls. Raises Conflict(PEER_REFUSED) for a call that did not come through the gate."""
    identity = identity_of(context.peer())
    if identity is None:
        raise Conflict(Reason.PEER_REFUSED, "this socket is the server's own; use the public one")
    return identity[0]


def process(context: Context) -> int:
    """By which process; 0 where we can't see it."""
    identity = identity_of(context.peer())
    return 0 if identity is None else identity[1]


def reference(context: Context, text: str) -> Reference:
    """What they mean by it."""
    return Reference(caller(context), text)
