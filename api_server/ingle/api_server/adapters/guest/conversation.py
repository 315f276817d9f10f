"""A command, an attachment or a forward, over one connection."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import messages, session_messages
from ingle.api_server.adapters.guest.answers import next_frame, response
from ingle.api_server.adapters.guest.connection import Connection
from ingle.api_server.adapters.guest.deadline import Deadline
from ingle.api_server.adapters.guest.frames import Frame, FrameType, encode
from ingle.api_server.model.guest import (
    Detached,
    ExecEvent,
    Input,
    InputEnd,
    Output,
    Said,
    Scrollback,
    SessionEvent,
    Signal,
    Stderr,
    Stdout,
    TerminalSize,
)
from ingle.api_server.model.guest_network import ForwardEvent, PeerEnded, Received

_E = TypeVar("_E")


@dataclass(frozen=True, slots=True)
class Part(Generic[_E]):
    """What an agent may say in one part of a conversation: frames that go on with it, and frames that end it, after
    which `then` follows, or nothing. None is no event."""

    during: str
    on: Mapping[FrameType, Callable[[bytes], _E | None]]
    last: Mapping[FrameType, Callable[[bytes], _E | None]]
    then: "Part[_E] | None" = None


def _forwarded(payload: bytes) -> None:
    response(Frame(FrameType.RESPONSE, payload), "forward")


EXEC: Part[ExecEvent] = Part(
    "an exec", {FrameType.STDOUT: Stdout, FrameType.STDERR: Stderr}, {FrameType.EXITED: messages.exited}
)
SESSION: Part[SessionEvent] = Part(
    "an attachment",
    {FrameType.STDOUT: Output, FrameType.SCROLLBACK: Scrollback},
    {FrameType.EXITED: messages.exited, FrameType.DETACHED: lambda _: Detached()},
)
FORWARD: Part[ForwardEvent] = Part(
    "a forward",
    {FrameType.DATA: Received},
    {FrameType.DATA_END: lambda _: PeerEnded()},
    then=Part("the end of a forward", {}, {FrameType.RESPONSE: _forwarded}),
)


class Conversation(Generic[_E]):
    """The port's, of whatever kind its parts are."""

    def __init__(
        self, connection: Connection, first: _E, part: Part[_E] | None, deadline: Deadline | None = None
    ) -> None:
        self._connection = connection
        self._first = first
        self._part = part
        self._deadline = deadline

    async def events(self) -> AsyncIterator[_E]:
        yield self._first
        part, connection, deadline = self._part, self._connection, self._deadline
        while part is not None:
            if deadline is None:
                frame = await next_frame(connection)
            else:
                async with deadline.wait():
                    frame = await next_frame(connection)
            take = part.on.get(frame.type) or part.last.get(frame.type)
            if take is None:
                raise messages.nonsense(f"{frame.type.name} during {part.during}")
            if frame.type in part.last:
                part = part.then
            if part is None:
                connection.close()
            if (event := take(frame.payload)) is not None:
                yield event

    async def say(self, what: Said) -> None:
        match what:
            case Input(data):
                await self._connection.send_stdin(data)
            case InputEnd():
                self._connection.send(encode(FrameType.STDIN_EOF))
            case Signal(number):
                self._tell(FrameType.SIGNAL, agent_pb2.ExecSignal(signal=number))
            case TerminalSize():
                self._tell(FrameType.RESIZE, session_messages.terminal_size(what))

    def leave(self) -> None:
        self._connection.close()

    def _tell(self, kind: FrameType, message: agent_pb2.ExecSignal | agent_pb2.TerminalSize) -> None:
        self._connection.send(encode(kind, message.SerializeToString()))
