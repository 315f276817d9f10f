"""The answers that every operation's connection begins and goes on with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import messages
from ingle.api_server.adapters.guest.address import describe
from ingle.api_server.adapters.guest.frames import Frame, FrameType
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentAddress


class Receiver(Protocol):
    """Whatever frames come from."""

    async def receive(self) -> Frame:
        """The next frame. Raises GuestError."""


@asynccontextmanager
async def answer_within(address: AgentAddress, seconds: float) -> AsyncIterator[None]:
    """A limit to what is done with the agent there. Raises GuestError(GUEST_UNREACHABLE) when it is over."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise GuestError(
            Reason.GUEST_UNREACHABLE, f"the guest's agent at {describe(address)} did not answer within {seconds:g} s"
        ) from error


async def hello(connection: Receiver) -> agent_pb2.HelloOk:
    """The agent's first answer."""
    frame = await next_frame(connection)
    if frame.type is not FrameType.HELLO_OK:
        raise messages.nonsense(f"{frame.type.name} instead of HELLO_OK")
    greeting = messages.parse(agent_pb2.HelloOk, frame.payload)
    if greeting.protocol_version != messages.PROTOCOL_VERSION:
        raise messages.nonsense(f"protocol version {greeting.protocol_version}, not {messages.PROTOCOL_VERSION}")
    return greeting


async def next_frame(connection: Receiver) -> Frame:
    """The next frame, unless it is the agent's ERROR: then that is raised."""
    return unless_error(await connection.receive())


def unless_error(frame: Frame) -> Frame:
    """The frame, unless it is the agent's ERROR: then that is raised."""
    if frame.type is FrameType.ERROR:
        raise messages.failure(frame.payload)
    return frame


def response(frame: Frame, result: str) -> agent_pb2.Response:
    """The one answer of the kind `result`. Raises GuestError(GUEST_PROTOCOL)."""
    if frame.type is not FrameType.RESPONSE:
        raise messages.nonsense(f"{frame.type.name} instead of RESPONSE")
    answer = messages.parse(agent_pb2.Response, frame.payload)
    if answer.WhichOneof("result") != result:
        raise messages.nonsense(f"a response that is no answer to {result}")
    return answer
