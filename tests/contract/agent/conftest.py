"""The real agent as an ordinary process on a unix socket: its whole protocol, without a VM or root."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
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
def start_agent(agent_binary: Path, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """An agent of one's own, with options."""
    with ExitStack() as agents:
        yield lambda *options: agents.enter_context(running_agent(agent_binary, tmp_path, *options))
