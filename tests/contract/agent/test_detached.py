"""Commands that outlive their callers."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import ExecSpec, Started
from ingle.api_server.ports.guest import GuestChannel

from .conftest import Agent, Gone, StartAgent
from .test_conversation import HELLO_OK, STARTED, hello, kinds, refusal, request, talk


async def detach(channel: GuestChannel, script: str, **options: object) -> int:
    """Start it and leave; answers its pid."""
    spec = ExecSpec(("sh", "-c", script), detach=True, **options)  # type: ignore[arg-type]
    async with channel.exec(spec) as session:
        (started,) = [event async for event in session.events()]
    assert isinstance(started, Started)
    return started.pid


async def written(path: Path) -> str:
    """The first line of a file that is not there yet."""
    async with asyncio.timeout(20):
        while not (path.exists() and "\n" in path.read_text()):
            await asyncio.sleep(0.005)
    return path.read_text().splitlines()[0]


async def test_a_detached_command_runs_on_without_its_caller(channel: GuestChannel, tmp_path: Path, gone: Gone) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    pid = await detach(channel, f"until test -e {go}; do sleep 0.01; done; echo $$ > {done}")
    assert Path(f"/proc/{pid}").exists()
    go.touch()
    assert await written(done) == str(pid)
    await gone(pid)  # and is reaped, though nobody asks how it ended


async def test_it_talks_to_nobody(channel: GuestChannel, gone: Gone) -> None:
    pid = await detach(channel, "exec sleep 1000")
    try:
        assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
    finally:
        os.kill(pid, signal.SIGKILL)
    await gone(pid)


async def test_its_output_goes_where_a_shell_sends_it(channel: GuestChannel, tmp_path: Path) -> None:
    await detach(channel, f"echo lost; exec >{tmp_path}/log 2>&1; echo kept; cat; echo end")
    assert await written(tmp_path / "log") == "kept"


async def test_its_timeout_ends_the_whole_group(channel: GuestChannel, tmp_path: Path, gone: Gone) -> None:
    pids = tmp_path / "pids"
    pid = await detach(channel, f"sleep 1000 & echo $$ $! > {pids}; wait", timeout_seconds=0.3)
    for member in {pid, *map(int, (await written(pids)).split())}:
        await gone(member)


async def test_what_cannot_start_is_told(channel: GuestChannel) -> None:
    with pytest.raises(GuestError) as caught:
        async with channel.exec(ExecSpec(("no-such-command",), detach=True)):
            pass
    assert caught.value.reason is Reason.COMMAND_NOT_FOUND


async def test_it_cannot_have_stdin_and_does_not_start(agent: Agent, tmp_path: Path) -> None:
    touch = ["touch", str(tmp_path / "started")]
    error = refusal(await talk(agent, hello() + request(agent_pb2.ExecRequest(argv=touch, detach=True, stdin=True))))
    assert error.code == agent_pb2.ERROR_CODE_BAD_REQUEST
    assert "stdin" in error.message
    assert not (tmp_path / "started").exists()


async def test_started_is_the_last_frame(agent: Agent) -> None:
    answer = await talk(agent, hello() + request(agent_pb2.ExecRequest(argv=["true"], detach=True)))
    assert kinds(answer) == [HELLO_OK, STARTED]


async def test_a_shutdown_ends_it(start_agent: StartAgent, gone: Gone) -> None:
    own = start_agent().channel()
    pid = await detach(own, "exec sleep 1000")
    await own.shutdown()
    await gone(pid)
