"""A connection to a server in the guest, carried in frames."""

from collections.abc import AsyncIterator

from ingle.api_server.adapters.guest import messages
from ingle.api_server.adapters.guest.connection import Connection
from ingle.api_server.adapters.guest.conversation import next_frame, response
from ingle.api_server.adapters.guest.frames import FrameType, encode
from ingle.api_server.model.guest_network import Connected, ForwardEvent, PeerEnded, Received


class GuestForwarding:
    """Forwarding over one connection."""

    def __init__(self, connection: Connection, connected: Connected) -> None:
        self._connection = connection
        self._connected = connected

    async def events(self) -> AsyncIterator[ForwardEvent]:
        yield self._connected
        while (frame := await next_frame(self._connection)).type is FrameType.DATA:
            yield Received(frame.payload)
        if frame.type is not FrameType.DATA_END:
            raise messages.nonsense(f"{frame.type.name} during a forward")
        yield PeerEnded()
        response(await next_frame(self._connection), "forward")
        self._connection.close()

    async def write(self, data: bytes) -> None:
        await self._connection.send_stdin(data)

    async def close_writing(self) -> None:
        self._connection.send(encode(FrameType.STDIN_EOF))

    def leave(self) -> None:
        self._connection.close()
