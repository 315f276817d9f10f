"""The real agent as an ordinary process on a unix socket: its whole protocol, without a VM or root."""

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.guest import (
    AgentEndpoint,
    ExecSpec,
    Exited,
    Input,
    InputEnd,
    Started,
    Stderr,
    Stdout,
    UnixAddress,
)
from ingle.api_server.ports.guest import GuestChannel

REPOSITORY = Path(__file__).parents[3]


class Agent:
    """A running agent and the way to it."""

    def __init__(self, process: "subprocess.Popen[str]", path: Path) -> None:
        self.process = process
        self.path = path
        self.address = UnixAddress(str(path))

    def channel(self, token: bytes = b"") -> GuestChannel:
        return Dialler().channel(AgentEndpoint(self.address, token))


StartAgent = Callable[..., Agent]


@contextmanager
def running_agent(binary: Path, directory: Path, *options: str) -> Iterator[Agent]:
    path = directory / "agent.sock"
    process = subprocess.Popen(
        [binary, "--listen", f"unix:{path}", *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ingle-agent ready\n"
        yield Agent(process, path)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="session")
def agent_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("agent") / "ingle-agent"
    options = ("-trimpath", "-ldflags", "-s -w -X main.version=tested")
    subprocess.run(
        [
            REPOSITORY / "scripts/go.sh",
            "build",
            "-C",
            REPOSITORY / "guest_agent",
            *options,
            "-o",
            binary,
            "./cmd/ingle-agent",
        ],
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
    )
    return binary


@pytest.fixture(scope="session")
def agent(agent_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with running_agent(agent_binary, tmp_path_factory.mktemp("run")) as agent:
        yield agent


@pytest.fixture
def channel(agent: Agent) -> GuestChannel:
    return agent.channel()


@pytest.fixture
def start_agent(agent_binary: Path, tmp_path: Path) -> Iterator[StartAgent]:
    """An agent of one's own, with options."""
    with ExitStack() as agents:
        yield lambda *options: agents.enter_context(running_agent(agent_binary, tmp_path, *options))


@dataclass(frozen=True)
class Result:
    """All that a command said."""

    pid: int
    stdout: bytes
    stderr: bytes
    exited: Exited


Run = Callable[..., Awaitable[Result]]
Gone = Callable[[int], Awaitable[None]]


@pytest.fixture
def run(channel: GuestChannel) -> Run:
    """Run a command to its end: `await run("cat", stdin=b"...", user="nobody")`."""

    async def run(*argv: str, stdin: bytes | None = None, **options: object) -> Result:
        spec = ExecSpec(argv, stdin=stdin is not None, **options)  # type: ignore[arg-type]
        async with channel.exec(spec) as session, asyncio.TaskGroup() as tasks:

            async def feed() -> None:
                await session.say(Input(stdin or b""))
                await session.say(InputEnd())

            if stdin is not None:
                tasks.create_task(feed())
            events = [event async for event in session.events()]
        started, *output, exited = events
        assert isinstance(started, Started)
        assert isinstance(exited, Exited)
        return Result(
            started.pid,
            b"".join(event.data for event in output if isinstance(event, Stdout)),
            b"".join(event.data for event in output if isinstance(event, Stderr)),
            exited,
        )

    return run


@pytest.fixture
def gone() -> Gone:
    """Return when a process is gone."""

    async def gone(pid: int) -> None:
        async with asyncio.timeout(20):
            while Path(f"/proc/{pid}").exists():
                await asyncio.sleep(0.005)

    return gone
