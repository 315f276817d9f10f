"""What every operation's connection begins and goes on with."""

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import messages
from ingle.api_server.adapters.guest.connection import Connection
from ingle.api_server.adapters.guest.frames import Frame, FrameType


async def hello(connection: Connection) -> agent_pb2.HelloOk:
    """The agent's first answer."""
    frame = await next_frame(connection)
    if frame.type is not FrameType.HELLO_OK:
        raise messages.nonsense(f"{frame.type.name} instead of HELLO_OK")
    greeting = messages.parse(agent_pb2.HelloOk, frame.payload)
    if greeting.protocol_version != messages.PROTOCOL_VERSION:
        raise messages.nonsense(f"protocol version {greeting.protocol_version}, not {messages.PROTOCOL_VERSION}")
    return greeting


async def next_frame(connection: Connection) -> Frame:
    """The next frame, unless it is the agent's ERROR: then that is raised."""
    frame = await connection.receive()
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
