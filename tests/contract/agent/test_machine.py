"""What an agent tells of its machine, and how it ends."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentEndpoint, ExecSpec, Exited, SerialAddress, UnixAddress
from ingle.api_server.ports.guest import GuestChannel

from .conftest import Agent


async def test_ping_tells_version_boot_and_uptime(channel: GuestChannel) -> None:
    info = await channel.ping()
    assert info.agent_version == "tested"
    assert info.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert info.uptime_seconds > 0


async def test_stats_are_the_kernels(channel: GuestChannel) -> None:
    stats = await channel.stats()
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert stats.memory_total_bytes == int(memory["MemTotal"].split()[0]) * 1024
    assert 0 < stats.memory_available_bytes < stats.memory_total_bytes
    assert 0 < stats.disk_available_bytes < stats.disk_total_bytes
    assert stats.processes > 1
    assert min(stats.load) >= 0


async def test_sync_answers(channel: GuestChannel) -> None:
    await channel.sync()


async def test_shutdown_answers_first_then_ends_commands_and_agent(start_agent: Callable[..., Agent]) -> None:
    agent = start_agent()
    async with agent.channel().exec(ExecSpec(("sleep", "1000"))) as session:
        events = session.events()
        await anext(events)
        await agent.channel().shutdown()
        assert [event async for event in events] == [Exited(137, signal=9)]
    assert await asyncio.to_thread(agent.process.wait, 20) == 0
    with pytest.raises(GuestError) as caught:
        await agent.channel().ping()
    assert caught.value.reason is Reason.GUEST_UNREACHABLE


@pytest.mark.parametrize("address", [UnixAddress("/no/such/socket"), SerialAddress("/no/such/port")], ids=str)
async def test_nobody_there_is_unreachable_and_says_where(address: UnixAddress | SerialAddress) -> None:
    with pytest.raises(GuestError, match="does not answer") as caught:
        await Dialler().channel(AgentEndpoint(address)).ping()
    assert caught.value.reason is Reason.GUEST_UNREACHABLE
