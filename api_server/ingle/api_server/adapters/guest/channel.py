"""What can be asked of an agent: one connection a question, HELLO and REQUEST in one packet."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import identity_messages, messages, network_messages, session_messages
from ingle.api_server.adapters.guest.answers import answer_within, hello, next_frame, response
from ingle.api_server.adapters.guest.connection import Connection
from ingle.api_server.adapters.guest.conversation import EXEC, FORWARD, SESSION, Conversation
from ingle.api_server.adapters.guest.deadline import Deadline
from ingle.api_server.adapters.guest.files import Files
from ingle.api_server.adapters.guest.frames import FrameError, FrameType, encode
from ingle.api_server.adapters.guest.mux import Lines
from ingle.api_server.adapters.guest.patience import PATIENCE, Patience
from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest import (
    AgentEndpoint,
    AgentInfo,
    Attached,
    AttachSpec,
    ExecEvent,
    ExecSpec,
    GuestActivity,
    GuestIdentity,
    GuestSession,
    GuestStats,
    HookResult,
    IdentityTaken,
    SessionEvent,
    SessionProgram,
    TerminalSize,
)
from ingle.api_server.model.guest_network import ForwardEvent, ForwardSpec, ListeningPorts


class Dialler:
    """GuestDialler over vsock, unix sockets and virtio-serial ports."""

    def __init__(self, patience: Patience = PATIENCE) -> None:
        self._patience = patience
        self._lines = Lines()

    def channel(self, endpoint: AgentEndpoint) -> "Channel":
        return Channel(endpoint, self._patience, self._lines)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all guests."""
        self._lines.close()


class Channel:
    """GuestChannel: the agent at one endpoint."""

    def __init__(self, endpoint: AgentEndpoint, patience: Patience, lines: Lines) -> None:
        self._endpoint = endpoint
        self._patience = patience
        self._lines = lines

    @property
    def files(self) -> Files:
        return Files(self._endpoint.address, self._greeting, self._patience, self._lines)

    async def ping(self, timeout_seconds: float = 5.0) -> AgentInfo:
        greeting, answer = await self._ask(agent_pb2.Request(ping=agent_pb2.PingRequest()), "ping", timeout_seconds)
        return messages.agent_info(greeting, answer.ping)

    async def stats(self, timeout_seconds: float = 5.0) -> GuestStats:
        _, answer = await self._ask(agent_pb2.Request(stats=agent_pb2.StatsRequest()), "stats", timeout_seconds)
        return messages.stats(answer.stats)

    async def activity(self, timeout_seconds: float = 5.0) -> GuestActivity:
        request = agent_pb2.Request(activity=agent_pb2.ActivityRequest())
        _, answer = await self._ask(request, "activity", timeout_seconds)
        return messages.activity(answer.activity)

    @asynccontextmanager
    async def forward(self, spec: ForwardSpec) -> AsyncIterator[Conversation[ForwardEvent]]:
        request = network_messages.forward_request(spec)
        limit = spec.timeout_seconds + self._patience.start_seconds  # the agent's own limit comes first, and says more
        async with self._begun(request, FrameType.CONNECTED, limit) as (connection, payload):
            yield Conversation(connection, network_messages.connected(payload), FORWARD)

    async def list_ports(self, timeout_seconds: float = 10.0) -> ListeningPorts:
        request = agent_pb2.Request(list_ports=agent_pb2.ListPortsRequest())
        _, answer = await self._ask(request, "list_ports", timeout_seconds)
        return await network_messages.listening_ports(answer.list_ports)

    async def sync(self, timeout_seconds: float = 30.0) -> None:
        await self._ask(agent_pb2.Request(sync=agent_pb2.SyncRequest()), "sync", timeout_seconds)

    async def shutdown(self, timeout_seconds: float = 10.0) -> None:
        await self._ask(agent_pb2.Request(shutdown=agent_pb2.ShutdownRequest()), "shutdown", timeout_seconds)

    async def take_identity(self, identity: GuestIdentity, timeout_seconds: float = 10.0) -> IdentityTaken:
        request = agent_pb2.Request(take_identity=identity_messages.identity(identity))
        _, answer = await self._ask(request, "take_identity", timeout_seconds)
        return identity_messages.taken(answer.take_identity)

    async def rest(self, timeout_seconds: float = 75.0) -> HookResult | None:
        _, answer = await self._ask(agent_pb2.Request(rest=agent_pb2.RestRequest()), "rest", timeout_seconds)
        return identity_messages.hook_result(answer.rest)

    async def thaw(self, *, forked: bool = False, timeout_seconds: float = 30.0) -> HookResult | None:
        request = agent_pb2.Request(thaw=agent_pb2.ThawRequest(forked=forked))
        _, answer = await self._ask(request, "thaw", timeout_seconds)
        return identity_messages.hook_result(answer.thaw)

    @asynccontextmanager
    async def exec(self, spec: ExecSpec) -> AsyncIterator[Conversation[ExecEvent]]:
        limits = (spec.timeout_seconds, self._patience.late_seconds)
        async with AsyncExitStack() as stack:
            async with Deadline(*limits).wait():
                begun = self._begun(messages.exec_request(spec), FrameType.STARTED)
                connection, payload = await stack.enter_async_context(begun)
            # Counted anew, as the agent does: a guest that took long to begin has no less time for the command.
            part = None if spec.detach else EXEC
            yield Conversation(connection, messages.started(payload), part, Deadline(*limits))

    async def create_session(self, session_id: str, program: SessionProgram) -> GuestSession:
        request = session_messages.create_request(session_id, program)
        _, response = await self._ask(request, "create_session", self._patience.start_seconds)
        return session_messages.session(response.create_session.session)

    @asynccontextmanager
    async def attach_session(self, spec: AttachSpec) -> AsyncIterator[Conversation[SessionEvent]]:
        request = session_messages.attach_request(spec)
        async with self._begun(request, FrameType.ATTACHED) as (connection, payload):
            yield Conversation(connection, Attached(session_messages.attached(payload)), SESSION)

    async def list_sessions(self, timeout_seconds: float = 5.0) -> tuple[GuestSession, ...]:
        request = agent_pb2.Request(list_sessions=agent_pb2.ListSessionsRequest())
        _, response = await self._ask(request, "list_sessions", timeout_seconds)
        return await session_messages.sessions(response.list_sessions)

    async def resize_session(self, session_id: str, size: TerminalSize) -> None:
        resize = agent_pb2.ResizeSessionRequest(id=session_id, size=session_messages.terminal_size(size))
        await self._ask(agent_pb2.Request(resize_session=resize), "resize_session", self._patience.start_seconds)

    async def kill_session(self, session_id: str, timeout_seconds: float = 10.0) -> None:
        kill = agent_pb2.KillSessionRequest(id=session_id)
        await self._ask(agent_pb2.Request(kill_session=kill), "kill_session", timeout_seconds)

    @asynccontextmanager
    async def _begun(
        self, request: agent_pb2.Request, expected: FrameType, limit_seconds: float | None = None
    ) -> AsyncIterator[tuple[Connection, bytes]]:
        """An operation that goes on, and the payload of its first answer; the connection is closed at the end."""
        async with self._begin(request) as connection:
            async with answer_within(self._endpoint.address, limit_seconds or self._patience.start_seconds):
                frame = await next_frame(connection)
            if frame.type is not expected:
                raise messages.nonsense(f"{frame.type.name} instead of {expected.name}")
            yield connection, frame.payload

    @asynccontextmanager
    async def _begin(self, request: agent_pb2.Request) -> AsyncIterator[Connection]:
        """A connection on which the agent has taken the request; closed at the end."""
        connection: Connection | None = None
        try:
            async with answer_within(self._endpoint.address, self._patience.start_seconds):
                connection = await self._connect(request)
                await hello(connection)
            yield connection
        finally:
            if connection is not None:
                connection.close()

    async def _ask(
        self, request: agent_pb2.Request, result: str, timeout_seconds: float
    ) -> tuple[agent_pb2.HelloOk, agent_pb2.Response]:
        """One question, one answer of the kind `result`."""
        async with answer_within(self._endpoint.address, min(timeout_seconds, self._patience.answer_seconds)):
            connection = await self._connect(request)
            try:
                greeting = await hello(connection)
                frame = await next_frame(connection)
            finally:
                connection.close()
        answer = response(frame, result)
        return greeting, answer

    async def _connect(self, request: agent_pb2.Request) -> Connection:
        return await Connection.connect(self._endpoint.address, self._greeting(request), self._lines)

    def _greeting(self, request: agent_pb2.Request) -> bytes:
        """HELLO and REQUEST. Raises InvalidArgument for a request that no frame holds."""
        hello = agent_pb2.Hello(protocol_version=messages.PROTOCOL_VERSION, token=self._endpoint.token)
        greeting = encode(FrameType.HELLO, hello.SerializeToString())
        try:
            greeting += encode(FrameType.REQUEST, request.SerializeToString())
        except FrameError as error:
            raise InvalidArgument(f"too much for the guest's agent: {error}", "pass it through stdin") from None
        return greeting
