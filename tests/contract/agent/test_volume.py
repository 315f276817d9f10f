"""Much of everything at once: what the agent's memory is at the worst, and that nothing is lost on the way."""

import asyncio
import os
import sys
from pathlib import Path

import grpc
import pytest

from ingle.api_server.model.guest import ExecSpec, Exited, Input, InputEnd, Started, Stderr, Stdout
from ingle.api_server.ports.guest import GuestChannel
from ingle.v1 import guest_pb2, guest_pb2_grpc

from .conftest import StartAgent

MIB = 1024 * 1024
IDLE_LIMIT = 12 * MIB
BUSY_LIMIT = 20 * MIB
SERVER_GROWTH = 8 * MIB
CALLERS = 200
BURST = 2_000_000


def peak_memory(pid: int) -> int:
    """The most that was resident since the process started, in bytes."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


class Pattern:
    """Random bytes that come again and again, and the command that says a gigabyte of them."""

    def __init__(self, directory: Path) -> None:
        once = os.urandom(MIB)
        (directory / "pattern").write_bytes(once)
        self._twice = memoryview(once * 2)
        self.argv = ("sh", "-c", f"i=0; while [ $i -lt 1024 ]; do cat {directory}/pattern; i=$((i+1)); done")
        self.received = 0

    def check(self, data: bytes) -> None:
        at = self.received % MIB
        assert data == self._twice[at : at + len(data)], f"behind {self.received} bytes"
        self.received += len(data)


async def reached(count: list[int], number: int) -> None:
    async with asyncio.timeout(120):
        while len(count) < number:
            await asyncio.sleep(0.01)


async def test_an_agent_that_has_served_a_few_is_small(start_agent: StartAgent) -> None:
    agent = start_agent()
    for _ in range(20):
        await agent.channel().ping()
        async with agent.channel().exec(ExecSpec(("true",))) as session:
            assert [event async for event in session.events()][-1] == Exited(0)
    assert peak_memory(agent.process.pid) < IDLE_LIMIT


@pytest.mark.parametrize("callers_wait", [False, True], ids=["read at once", "read when all have burst"])
async def test_two_hundred_commands_that_burst_at_once_fit_into_20_mb(
    start_agent: StartAgent, tmp_path: Path, callers_wait: bool
) -> None:
    """Both output streams of each are full, and its stdin is open."""
    agent = start_agent()
    go, written = asyncio.Event(), asyncio.Event()
    running: list[int] = []
    half = BURST // 2
    script = f"read line; head -c {half} /dev/zero & head -c {half} /dev/zero >&2; wait; cat; exit 7"

    async def call() -> None:
        async with agent.channel().exec(ExecSpec(("sh", "-c", script), stdin=True)) as session:
            events = session.events()
            started = await anext(events)
            assert isinstance(started, Started)
            running.append(started.pid)
            await go.wait()
            await session.say(Input(b"go\n"))
            await session.say(InputEnd())
            await written.wait()
            sizes = {Stdout: 0, Stderr: 0}
            async for event in events:
                if isinstance(event, Stdout | Stderr):
                    sizes[type(event)] += len(event.data)
                else:
                    assert event == Exited(7)
            assert sizes == {Stdout: half, Stderr: half}

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(call())
        await reached(running, CALLERS)
        go.set()
        if callers_wait:
            await stalled(running)
        written.set()
    assert peak_memory(agent.process.pid) < BUSY_LIMIT


async def stalled(pids: list[int]) -> None:
    """Return when no command of these has written anything for a while: its pipe is full, and so is all behind it."""

    def bytes_written() -> int:
        return sum(_written_by_group(pid) for pid in pids)

    async with asyncio.timeout(60):
        before = -1
        while (now := bytes_written()) != before:
            before = now
            await asyncio.sleep(0.5)


def _written_by_group(leader: int) -> int:
    children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    total = 0
    for pid in children:
        try:
            total += int(Path(f"/proc/{pid}/io").read_text().split("wchar:")[1].split()[0])
        except OSError:
            continue  # it has ended meanwhile
    return total


async def test_a_gigabyte_of_output_comes_as_it_went_at_constant_memory(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    agent, pattern = start_agent(), Pattern(tmp_path)
    async with agent.channel().exec(ExecSpec(pattern.argv)) as session:
        async for event in session.events():
            match event:
                case Stdout(data):
                    pattern.check(data)
                case Started():
                    pass
                case other:
                    assert other == Exited(0)
    assert pattern.received == 1024 * MIB
    assert peak_memory(agent.process.pid) < BUSY_LIMIT


async def test_a_gigabyte_passes_the_server_at_constant_memory(start_agent: StartAgent, tmp_path: Path) -> None:
    agent, pattern = start_agent(), Pattern(tmp_path)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "contract.one_vm",
        agent.path,
        tmp_path / "api.sock",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), *sys.path)))},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/api.sock") as channel:
            guest = guest_pb2_grpc.GuestServiceStub(channel)
            start = guest_pb2.ExecStart(vm="any", argv=["head", "-c", str(16 * MIB), "/dev/zero"])
            async for _ in guest.Exec(iter([guest_pb2.ExecRequest(start=start)])):
                pass  # all that it needs for any output at all is there now
            before = peak_memory(process.pid)
            start.argv[:] = pattern.argv
            async for response in guest.Exec(iter([guest_pb2.ExecRequest(start=start)])):
                pattern.check(response.stdout_data)
        assert response.exited == guest_pb2.ExecExited()
        assert pattern.received == 1024 * MIB
        assert peak_memory(process.pid) - before < SERVER_GROWTH
        assert peak_memory(agent.process.pid) < BUSY_LIMIT
    finally:
        process.kill()
        await process.wait()


async def test_ten_thousand_short_commands_end_with_their_own_codes(channel: GuestChannel) -> None:
    """While orphans of others, which the agent gets as PID 1 does, are reaped beside them."""
    numbers = iter(range(10_000))
    wrong: list[tuple[int, Exited]] = []
    ran = 0

    async def caller() -> None:
        nonlocal ran
        for number in numbers:
            code = number % 256
            script = f"exit {code}" if number % 10 else f"(true &); (sleep 0.01 &) >&- 2>&-; exit {code}"
            async with channel.exec(ExecSpec(("sh", "-c", script))) as session:
                *_, exited = [event async for event in session.events()]
            ran += 1
            if exited != Exited(code):
                assert isinstance(exited, Exited)
                wrong.append((number, exited))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(16):
            tasks.create_task(caller())
    assert (ran, wrong) == (10_000, [])


async def test_deaths_by_signal_are_never_mixed_up_either(channel: GuestChannel) -> None:
    async def call(number: int) -> Exited:
        async with channel.exec(ExecSpec(("sh", "-c", f"kill -{number} $$"))) as session:
            *_, exited = [event async for event in session.events()]
        assert isinstance(exited, Exited)
        return exited

    numbers = [1, 2, 3, 6, 9, 13, 15, 34, 50, 64] * 20
    assert await asyncio.gather(*(call(number) for number in numbers)) == [
        Exited(128 + number, signal=number) for number in numbers
    ]
