"""The part of GuestService that is about sessions: commands on terminals that outlive their callers."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeAlias

import grpc

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest import Exited
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.ports.guest import Attachment, GuestChannel
from ingle.api_server.ports.store import Store
from ingle.api_server.rpc import session_convert as convert
from ingle.api_server.rpc.conversation import both_ways
from ingle.v1 import guest_pb2, guest_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
Requests = AsyncIterator[guest_pb2.AttachSessionRequest]

_LARGEST_INPUT = 1024 * 1024


class SessionCalls(guest_pb2_grpc.GuestServiceServicer):
    """Terminals in guests."""

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet

    async def CreateSession(
        self, request: guest_pb2.CreateSessionRequest, context: Context
    ) -> guest_pb2.CreateSessionResponse:
        program = convert.session_program(request.program)
        channel = await self._channel(request.vm)
        session = await channel.create_session(request.session_id, program)
        return guest_pb2.CreateSessionResponse(session=convert.session(session))

    async def AttachSession(
        self, request_iterator: Requests, context: Context
    ) -> AsyncIterator[guest_pb2.AttachSessionResponse]:
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("message") != "start":
            raise InvalidArgument("the first message of an attachment must be `start`")
        spec = convert.attach_spec(first.start)
        vm = await self._store.vm(first.start.vm)
        async with self._fleet.conversation(vm) as channel, channel.attach_session(spec) as attachment:
            carry = _carry(request_iterator, attachment)
            async with aclosing(both_ways(carry, attachment.leave, attachment.events())) as events:
                async for event in events:
                    if isinstance(event, Exited) and event.signal:
                        await self._fleet.check_killed(vm)
                    yield convert.session_event(event)

    async def ListSessions(
        self, request: guest_pb2.ListSessionsRequest, context: Context
    ) -> guest_pb2.ListSessionsResponse:
        sessions = await self._fleet.channel(await self._store.find_vm(request.vm)).list_sessions()
        return guest_pb2.ListSessionsResponse(sessions=[convert.session(session) for session in sessions])

    async def ResizeSession(
        self, request: guest_pb2.ResizeSessionRequest, context: Context
    ) -> guest_pb2.ResizeSessionResponse:
        size = convert.terminal_size(request.size)
        await (await self._channel(request.vm)).resize_session(request.session_id, size)
        return guest_pb2.ResizeSessionResponse()

    async def KillSession(
        self, request: guest_pb2.KillSessionRequest, context: Context
    ) -> guest_pb2.KillSessionResponse:
        await (await self._channel(request.vm)).kill_session(request.session_id)
        return guest_pb2.KillSessionResponse()

    async def _channel(self, vm: str) -> GuestChannel:
        return self._fleet.channel(await self._store.vm(vm))


async def _carry(requests: Requests, attachment: Attachment) -> None:
    """Carry what the caller types. A caller who will type nothing more may still look on."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "input":
                if len(request.input) > _LARGEST_INPUT:
                    raise InvalidArgument(f"{len(request.input)} bytes of input at once; {_LARGEST_INPUT} is allowed")
                await attachment.write_input(request.input)
            case "resize":
                await attachment.resize(convert.terminal_size(request.resize))
            case other:
                raise InvalidArgument(f"message {other or 'without content'} is not allowed after start")
