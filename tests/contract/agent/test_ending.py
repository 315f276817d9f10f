"""How commands end that don't end by themselves: no process of a command's group is ever left behind unasked."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.guest.patience import Patience
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentEndpoint, ExecEvent, ExecSpec, Exited, Input, Signal, Started, Stdout
from ingle.api_server.ports.guest import Conversation, GuestChannel

from .conftest import Agent, Run, StartAgent

Gone = Callable[[int], Awaitable[None]]
Family = tuple[Conversation[ExecEvent], list[int], AsyncIterator[ExecEvent]]

_FAMILY = "sh -c 'sleep 1000 & echo $! $$; wait' & wait"
"""A command whose child has a child; it prints their process ids and goes on for ever."""

_STUBBORN = "trap '' TERM HUP INT; sh -c 'echo $$ $$; while :; do sleep 1000; done' & wait; while :; do wait; done"
"""The same, deaf to polite signals."""


@asynccontextmanager
async def family(
    channel: GuestChannel, script: str, **options: object
) -> AsyncIterator[tuple[Conversation[ExecEvent], list[int], AsyncIterator[ExecEvent]]]:
    spec = ExecSpec(("sh", "-c", script), **options)  # type: ignore[arg-type]
    async with channel.exec(spec) as session:
        events = session.events()
        started = await anext(events)
        output = await anext(events)
        assert isinstance(started, Started)
        assert isinstance(output, Stdout)
        yield session, [started.pid, *map(int, output.data.split())], events


async def test_timeout_ends_the_whole_group(channel: GuestChannel, gone: Gone) -> None:
    async with family(channel, _FAMILY, timeout_seconds=0.2) as (_, pids, events):
        assert [event async for event in events] == [Exited(143, signal=15, timed_out=True)]
        for pid in pids:
            await gone(pid)


async def test_timeout_ends_a_group_that_ignores_sigterm(channel: GuestChannel, gone: Gone) -> None:
    async with family(channel, _STUBBORN, timeout_seconds=0.2) as (_, pids, events):
        assert [event async for event in events] == [Exited(137, signal=9, timed_out=True)]
        for pid in pids:
            await gone(pid)


async def test_a_child_that_outlives_a_polite_parent_is_killed(channel: GuestChannel, gone: Gone) -> None:
    script = "(trap '' TERM; echo $$ $$; while :; do sleep 1000; done) & trap 'exit 3' TERM; wait"
    async with family(channel, script, timeout_seconds=0.2) as (_, pids, events):
        assert [event async for event in events] == [Exited(3, timed_out=True)]
        for pid in pids:
            await gone(pid)


async def test_a_command_within_its_time_is_not_timed_out(run: Run) -> None:
    assert (await run("true", timeout_seconds=3600)).exited == Exited(0, timed_out=False)


async def test_a_caller_that_leaves_ends_the_whole_group(channel: GuestChannel, gone: Gone) -> None:
    async with family(channel, _FAMILY) as (_, pids, _):
        pass
    for pid in pids:
        await gone(pid)


async def test_a_stopped_command_is_ended_too(channel: GuestChannel, gone: Gone) -> None:
    async with family(channel, _FAMILY) as (session, pids, _):
        await session.say(Signal(signal.SIGSTOP))
    for pid in pids:
        await gone(pid)


async def test_a_caller_that_leaves_is_noticed_behind_input_nobody_reads(channel: GuestChannel, gone: Gone) -> None:
    async with family(channel, _FAMILY, stdin=True) as (session, pids, _):
        writer = asyncio.create_task(session.say(Input(bytes(5_000_000))))
        await asyncio.sleep(0.05)
        assert not writer.done()
    await writer
    for pid in pids:
        await gone(pid)


async def test_a_signal_overtakes_input_nobody_reads(channel: GuestChannel) -> None:
    async with family(channel, _FAMILY, stdin=True) as (session, _, events):
        writer = asyncio.create_task(session.say(Input(bytes(5_000_000))))
        await asyncio.sleep(0.05)
        await session.say(Signal(signal.SIGINT))
        assert [event async for event in events] == [Exited(130, signal=2, output_cut=True)]
        await writer


async def test_a_caller_that_leaves_is_noticed_behind_output_it_did_not_take(channel: GuestChannel, gone: Gone) -> None:
    async with channel.exec(ExecSpec(("yes",))) as session:
        started = await anext(session.events())
        assert isinstance(started, Started)
    await gone(started.pid)


async def test_a_slow_caller_slows_the_command(channel: GuestChannel) -> None:
    async with channel.exec(ExecSpec(("head", "-c", "100000000", "/dev/zero"))) as session:
        events = session.events()
        started = await anext(events)
        assert isinstance(started, Started)
        await asyncio.sleep(0.2)
        assert Path(f"/proc/{started.pid}").exists()
        sizes = [len(event.data) async for event in events if isinstance(event, Stdout)]
    assert sum(sizes) == 100_000_000


async def test_who_left_the_group_is_not_the_commands_any_more(channel: GuestChannel, gone: Gone) -> None:
    """As a daemon that forks, or setsid: a timeout does not reach it, and nor does a caller that leaves."""
    script = "setsid sh -c 'echo $$ $$; exec sleep 1000 >&- 2>&-' & wait; sleep 1000"
    async with family(channel, script, timeout_seconds=0.3) as (_, pids, events):
        command, outsider, _ = pids
        try:
            (ended,) = [event async for event in events]
            assert ended == Exited(143, signal=15, timed_out=True)
            await gone(command)
            assert "sleep" in Path(f"/proc/{outsider}/cmdline").read_text()
        finally:
            os.kill(outsider, signal.SIGKILL)
        await gone(outsider)


async def test_a_background_process_outlives_its_command(run: Run, gone: Gone) -> None:
    result = await run("sh", "-c", "sleep 1000 & echo $!; exit 5")
    background = int(result.stdout)
    try:
        assert result.exited == Exited(5, output_cut=True)
        assert Path(f"/proc/{background}").exists()
    finally:
        os.kill(background, signal.SIGKILL)
    await gone(background)


async def test_what_a_background_process_floods_does_not_hold_up_the_end(run: Run, gone: Gone) -> None:
    result = await run("sh", "-c", "sh -c 'echo $$; exec yes' & exit 5")
    assert result.exited == Exited(5, output_cut=True)
    await gone(int(result.stdout.split(b"\n", 1)[0]))  # of SIGPIPE, since nobody reads


async def test_output_of_what_a_command_leaves_behind_is_part_of_it(run: Run) -> None:
    result = await run("sh", "-c", "(sleep 0.7; echo late) & exit 3")
    assert (result.stdout, result.exited) == (b"late\n", Exited(3))


async def test_late_output_is_waited_for_on_request(run: Run) -> None:
    result = await run("sh", "-c", "(sleep 3; echo late >&2) & exit 3", wait_output=True)
    assert (result.stderr, result.exited) == (b"late\n", Exited(3))


async def test_late_output_is_not_waited_for_longer_than_the_timeout(run: Run, gone: Gone) -> None:
    result = await run("sh", "-c", "sleep 1000 & echo $!; exit 3", wait_output=True, timeout_seconds=1)
    os.kill(int(result.stdout), signal.SIGKILL)
    assert result.exited == Exited(3, output_cut=True)


async def test_who_leaves_while_late_output_is_waited_for_leaves_nothing_behind(
    channel: GuestChannel, gone: Gone
) -> None:
    spec = ExecSpec(("sh", "-c", "sleep 1000 & echo $!"), wait_output=True)
    async with channel.exec(spec) as session:
        events = session.events()
        started, output = await anext(events), await anext(events)
        assert isinstance(started, Started)
        assert isinstance(output, Stdout)
        await gone(started.pid)
    async with asyncio.timeout(20):
        while (await channel.activity()).execs:
            await asyncio.sleep(0.005)
    os.kill(int(output.data), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_that_comes_when_the_command_has_ended_ends_the_waiting_for_late_output(
    channel: GuestChannel, gone: Gone, number: int
) -> None:
    spec = ExecSpec(("sh", "-c", "sleep 1000 & echo $!; exit 3"), wait_output=True)
    async with channel.exec(spec) as session, asyncio.timeout(20):
        events = session.events()
        started, output = await anext(events), await anext(events)
        assert isinstance(started, Started)
        assert isinstance(output, Stdout)
        await gone(started.pid)
        await session.say(Signal(signal.SIGUSR1))
        await session.say(Signal(number))
        assert await anext(events) == Exited(3, output_cut=True)
    os.kill(int(output.data), signal.SIGKILL)


@pytest.mark.parametrize("moment", ["before it starts", "while it runs"])
async def test_a_guest_that_is_frozen_does_not_hold_up_a_timeout(start_agent: StartAgent, moment: str) -> None:
    agent = start_agent()
    spec = ExecSpec(("sleep", "1000"), timeout_seconds=0.3)
    try:
        if moment == "before it starts":
            agent.process.send_signal(signal.SIGSTOP)
        with pytest.raises(GuestError) as raised:
            await _freeze_while_running(agent, spec)
        assert raised.value.reason is Reason.COMMAND_TIMED_OUT
    finally:
        agent.process.send_signal(signal.SIGCONT)


def _impatient(agent: Agent) -> GuestChannel:
    return Dialler(Patience(late_seconds=0.2)).channel(AgentEndpoint(agent.address))


async def _freeze_while_running(agent: Agent, spec: ExecSpec) -> None:
    async with asyncio.timeout(20), _impatient(agent).exec(spec) as session:
        async for _ in session.events():
            agent.process.send_signal(signal.SIGSTOP)


async def test_a_caller_who_is_slow_to_take_what_came_in_time_gets_all_of_it(
    agent: Agent,
) -> None:
    received, last = 0, None
    async with _impatient(agent).exec(ExecSpec(("head", "-c", "400000", "/dev/zero"), timeout_seconds=0.5)) as session:
        async for event in session.events():
            if isinstance(event, Stdout):
                await asyncio.sleep(0 if received else 1.5)
                received += len(event.data)
            last = event
    assert (received, last) == (400_000, Exited(0))


async def test_orphans_are_reaped(run: Run, agent: Agent, gone: Gone) -> None:
    result = await run("sh", "-c", "setsid sh -c 'echo $$; exec >&- 2>&-; sleep 0.05' & exit 0")
    await gone(int(result.stdout))
