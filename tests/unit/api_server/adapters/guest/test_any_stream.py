"""The host's end of a connection, fed with any stream in any pieces, also after it was left."""

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ingle.api_server.adapters.guest.connection import Connection
from ingle.api_server.adapters.guest.frames import Frame, FrameType, encode
from ingle.api_server.model.errors import GuestError
from unit.api_server.adapters.guest.test_frames import frames

steady = settings(deadline=None, derandomize=True, max_examples=60)

nothing_else = frames.filter(lambda frame: frame.type is not FrameType.WINDOW)


def feed(connection: Connection, data: bytes) -> None:
    """As a transport does."""
    rest = memoryview(data)
    while rest:
        space = connection.get_buffer(-1)
        part, rest = rest[: len(space)], rest[len(space) :]
        space[: len(part)] = part
        connection.buffer_updated(len(part))


async def heard(connection: Connection, pieces: list[bytes], leave_after: int) -> list[Frame]:
    for number, piece in enumerate(pieces):
        if number == leave_after:
            connection.close()
        feed(connection, piece)
        await asyncio.sleep(0)
    connection.eof_received()
    found = []
    try:
        async with asyncio.timeout(20):
            while True:
                found.append(await connection.receive())
    except GuestError:
        return found


@steady
@given(st.data(), st.lists(nothing_else, max_size=6), st.binary(max_size=20), st.integers(0, 9))
def test_frames_come_in_order_and_nothing_else_does(
    data: st.DataObject, sent: list[Frame], garbage: bytes, leave_after: int
) -> None:
    stream = b"".join(encode(*frame) for frame in sent) + garbage
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    pieces = [stream[begin:end] for begin, end in pairwise(sorted([0, *places, len(stream)]))]
    found = asyncio.run(heard(Connection("an agent"), pieces, leave_after))
    assert found[: len(sent)] == sent[: len(found)]
    if leave_after >= len(pieces):
        assert found[: len(sent)] == sent
