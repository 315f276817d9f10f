"""What a stand-in is told to say, and how it says it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from ingle.api_server.application import SERVICES
from ingle.api_server.model.errors import Conflict, IngleError, InvalidArgument, Reason


@dataclass(frozen=True)
class Refusal:
    """An error as ingle has it on the wire, code and details included. `reason` is a name of `ingle.v1.ErrorReason`
    without its prefix; `field`, of an INVALID_ARGUMENT, is the one that is wrong.

    Raises ValueError for a reason that the contract has not."""

    reason: str
    message: str
    remedy: str = ""
    field: str = ""

    def __post_init__(self) -> None:
        if self.reason not in Reason.__members__:
            raise ValueError(f"{self.reason!r} is no reason of ingle.v1.ErrorReason, such as VM_NOT_FOUND")

    def error(self) -> IngleError:
        """As the server raises it."""
        if Reason[self.reason] is Reason.INVALID_ARGUMENT:
            return InvalidArgument(self.message, self.remedy, field=self.field)
        return IngleError(Reason[self.reason], self.message, self.remedy)


class Silence:
    """Nothing more is said, and the call goes on."""


SILENCE: Final = Silence()

Said: TypeAlias = Message | Refusal | Silence
Answer: TypeAlias = Said | Sequence[Said]
Told: TypeAlias = Answer | Callable[[Any], Answer]


@dataclass(frozen=True)
class Call:
    """One that came: its method, such as "VmService.GetVm", what was asked in it so far, and its metadata."""

    method: str
    requests: list[Message]
    metadata: dict[str, str | bytes]


class Script(grpc.GenericRpcHandler):
    """Handles every method of ingle.v1, as it was told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        services = [descriptor_pool.Default().FindServiceByName(name) for name in SERVICES]
        self._methods = {f"{service.name}.{method.name}": method for service in services for method in service.methods}
        self._told: dict[str, list[Told]] = {}

    def tell(self, name: str, told: Sequence[Told]) -> None:
        """As StandIn.answer."""
        method = self._methods.get(name)
        if method is None:
            raise ValueError(f"{name!r} is no method of ingle.v1, such as {next(iter(self._methods))!r}")
        if not told:
            raise ValueError(f"there is no answer for {name}; give a message, a Refusal or SILENCE")
        for answer in told:
            if not callable(answer):
                list(_said(method, answer))
        self._told[name] = list(told)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Streams on both sides serve every kind of method: on the wire, one message is a stream of one."""
        service, _, name = handler_call_details.method.removeprefix("/").rpartition("/")
        name = f"{service.rpartition('.')[2]}.{name}"
        method = self._methods.get(name)
        if method is None or method.containing_service.full_name != service:
            return None
        return grpc.stream_stream_rpc_method_handler(
            partial(self._answer, name, method),
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    async def _answer(
        self, name: str, method: MethodDescriptor, requests: AsyncIterator[Message], context: Any
    ) -> AsyncIterator[Message]:
        call = Call(name, [], dict(context.invocation_metadata() or ()))
        self.calls.append(call)
        asked = asyncio.Event()
        reading = asyncio.create_task(_read(requests, call.requests, asked))
        try:
            await (asked.wait() if method.server_streaming else asyncio.shield(reading))
            if not call.requests:
                raise InvalidArgument("a call without a request")
            for said in _said(method, self._next(name, call.requests[0])):
                if isinstance(said, Refusal):
                    raise said.error()
                if isinstance(said, Silence):
                    await asyncio.Event().wait()
                else:
                    yield said
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    def _next(self, name: str, request: Message) -> Answer:
        """Each call takes the next answer, and the last one stays."""
        told = self._told.get(name)
        if told is None:
            raise Conflict(Reason.UNKNOWN_METHOD, f"the test has no answer for {name}", f"answer({name!r}, ...)")
        answer = told.pop(0) if len(told) > 1 else told[0]
        return answer(request) if callable(answer) else answer


async def _read(requests: AsyncIterator[Message], into: list[Message], asked: asyncio.Event) -> None:
    try:
        async for request in requests:
            into.append(request)
            asked.set()
    finally:
        asked.set()


def _said(method: MethodDescriptor, answer: Answer) -> Iterator[Said]:
    """Raises ValueError for what the method never says."""
    parts = answer if isinstance(answer, Sequence) else (answer,)
    if not method.server_streaming and len(parts) != 1:
        raise ValueError(f"{method.full_name} has one answer, and not {len(parts)}")
    for part in parts:
        if isinstance(part, Message) and part.DESCRIPTOR.full_name != method.output_type.full_name:
            said, right = part.DESCRIPTOR.full_name, method.output_type.full_name
            raise ValueError(f"{method.full_name} answers with {right}, and not with {said}")
        yield part
