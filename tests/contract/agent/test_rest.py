"""A guest that rests, and goes on: what it answers meanwhile. Outside of any guest, what rests is what an agent has
started."""

import asyncio
from pathlib import Path

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.frames import FrameType, encode
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import ExecSpec, Exited, GuestIdentity, SessionProgram

from .conftest import Agent, StartAgent

ANSWERED = {"ping", "stats", "activity", "sync", "take_identity", "rest", "thaw", "shutdown"}
OPERATIONS = agent_pb2.Request.DESCRIPTOR.oneofs_by_name["operation"].fields
_SECONDS = 20


@pytest.fixture
def own(start_agent: StartAgent) -> Agent:
    """An agent that a test may put to rest."""
    return start_agent("--pretend")


async def ask(agent: Agent, operation: str) -> agent_pb2.Error | None:
    """Ask for it, with nothing more said than that; the error, if that is the answer."""
    request = agent_pb2.Request()
    getattr(request, operation).SetInParent()
    reader, writer = await asyncio.open_unix_connection(str(agent.path))
    try:
        hello = agent_pb2.Hello(protocol_version=1)
        writer.write(encode(FrameType.HELLO, hello.SerializeToString()))
        writer.write(encode(FrameType.REQUEST, request.SerializeToString()))
        async with asyncio.timeout(_SECONDS):
            while True:
                kind, *payload = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
                if kind != FrameType.HELLO_OK:
                    return agent_pb2.Error.FromString(bytes(payload)) if kind == FrameType.ERROR else None
    finally:
        writer.close()


@pytest.mark.parametrize("operation", [field.name for field in OPERATIONS])
async def test_what_would_disturb_a_guest_that_rests_is_refused(own: Agent, operation: str) -> None:
    await own.channel().rest()
    error = await ask(own, operation)
    refused = error is not None and error.code == agent_pb2.ERROR_CODE_RESTING
    assert refused == (operation not in ANSWERED)


async def moves(count: Path) -> bool:
    """Whether the counter in the file goes on."""
    before = count.read_text()
    await asyncio.sleep(0.3)
    return count.read_text() != before


async def test_what_it_has_started_stops_and_goes_on(own: Agent, tmp_path: Path) -> None:
    channel, count = own.channel(), tmp_path / "count"
    script = f"while :; do i=$((i+1)); echo $i >{count}.new; mv {count}.new {count}; sleep 0.01; done"
    async with channel.exec(ExecSpec(("sh", "-c", script))):
        async with asyncio.timeout(_SECONDS):
            while not count.exists():
                await asyncio.sleep(0.01)
        assert await moves(count)
        for _ in range(2):
            assert await channel.rest() is None
            assert not await moves(count)
        for _ in range(2):
            assert await channel.thaw() is None
            assert await moves(count)


async def test_who_asked_for_rest_may_leave(own: Agent) -> None:
    rest = asyncio.create_task(own.channel().rest())
    await asyncio.sleep(0)
    rest.cancel()
    await own.channel().rest()
    with pytest.raises(GuestError) as caught:
        await own.channel().create_session("", SessionProgram())
    assert caught.value.reason is Reason.GUEST_RESTING


async def test_many_who_put_it_to_rest_and_wake_it_leave_it_awake(own: Agent) -> None:
    async def nap() -> None:
        await own.channel().rest()
        await own.channel().thaw()

    await asyncio.gather(*(nap() for _ in range(20)))
    async with own.channel().exec(ExecSpec(("true",))) as command:
        events = [event async for event in command.events()]
    assert events[-1] == Exited(0)


async def test_it_rests_on_as_whoever_it_becomes(own: Agent) -> None:
    await own.channel().rest()
    await own.channel().take_identity(GuestIdentity(token=b"n" * 32, env={"A": "1"}))
    channel = own.channel(b"n" * 32)
    with pytest.raises(GuestError) as caught:
        await channel.files.stat("/")
    assert caught.value.reason is Reason.GUEST_RESTING
    await channel.thaw(forked=True)
    await channel.files.stat("/")


async def test_one_that_rests_can_be_ended(own: Agent) -> None:
    channel = own.channel()
    async with channel.exec(ExecSpec(("sleep", "1000"))):
        await channel.rest()
        await channel.shutdown()
        assert await asyncio.to_thread(own.process.wait, _SECONDS) == 0
