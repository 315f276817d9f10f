"""The part of GuestService that is about sessions: commands on terminals that outlive their callers."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.model.guest import Input, Said
from ingle.api_server.operations import guest_commands
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.rpc import who
from ingle.api_server.rpc.guest import session_messages as convert
from ingle.api_server.rpc.guest.conversation import answers, not_allowed, opening
from ingle.api_server.rpc.paging import page
from ingle.v1 import guest_pb2, guest_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
Requests = AsyncIterator[guest_pb2.AttachSessionRequest]


class SessionMethods(guest_pb2_grpc.GuestServiceServicer):
    """Terminals in guests."""

    _guests: UseGuest

    async def CreateSession(
        self, request: guest_pb2.CreateSessionRequest, context: Context
    ) -> guest_pb2.CreateSessionResponse:
        program = convert.session_program(request.program)
        vm = who.reference(context, request.vm)
        session = await guest_commands.create_session(self._guests, vm, request.session_id, program)
        return guest_pb2.CreateSessionResponse(session=convert.session(session))

    async def AttachSession(
        self, request_iterator: Requests, context: Context
    ) -> AsyncIterator[guest_pb2.AttachSessionResponse]:
        start = (await opening(request_iterator, "an attachment")).start
        spec = convert.attach_spec(start)
        said, vm = _said(request_iterator), who.reference(context, start.vm)
        events = guest_commands.attach(self._guests, vm, spec, said)
        async for answer in answers(events, convert.session_event):
            yield answer

    async def ListSessions(
        self, request: guest_pb2.ListSessionsRequest, context: Context
    ) -> guest_pb2.ListSessionsResponse:
        async with self._guests.look(who.reference(context, request.vm)) as channel:
            sessions = await channel.list_sessions()
        told, token = page(sessions, lambda session: (session.id,), request, convert.session)
        return guest_pb2.ListSessionsResponse(sessions=told, next_page_token=token)

    async def ResizeSession(
        self, request: guest_pb2.ResizeSessionRequest, context: Context
    ) -> guest_pb2.ResizeSessionResponse:
        size = convert.terminal_size(request.size)
        async with self._guests.use(who.reference(context, request.vm)) as channel:
            await channel.resize_session(request.session_id, size)
        return guest_pb2.ResizeSessionResponse()

    async def KillSession(
        self, request: guest_pb2.KillSessionRequest, context: Context
    ) -> guest_pb2.KillSessionResponse:
        async with self._guests.use(who.reference(context, request.vm)) as channel:
            await channel.kill_session(request.session_id)
        return guest_pb2.KillSessionResponse()


async def _said(requests: Requests) -> AsyncIterator[Said]:
    """What the caller types. One who will type nothing more may still look on."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "input":
                yield Input(request.input)
            case "resize":
                yield convert.terminal_size(request.resize)
            case other:
                raise not_allowed(other)
