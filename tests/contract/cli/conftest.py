"""The command line as a process of its own, and a server for it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.cli.stand_in import new_server
from contract.cli.world import World
from contract.one_vm import OneVm, behind_a_gate
from contract.one_vm import new_server as one_vm_server
from ingle.api_server.programs import agent_binary


@dataclass(frozen=True)
class Finished:
    """How a command line ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


@dataclass(frozen=True)
class Ingle:
    """Runs `ingle` in an environment of its own."""

    environment: Mapping[str, str]

    async def start(
        self, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL, stdout: int = asyncio.subprocess.PIPE
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ingle.cli",
            *arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )

    async def __call__(self, *arguments: str, stdin: bytes | None = None) -> Finished:
        pipe = asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
        process = await self.start(*arguments, stdin=pipe)
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Finished(process.returncode, out, err.decode())

    def with_variables(self, **variables: str) -> "Ingle":
        return Ingle({**self.environment, **variables})


@pytest.fixture
def isolated(tmp_path: Path) -> Ingle:
    """No server, and directories of its own."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "PYTHONPATH", "LANG", "COVERAGE_PROCESS_START")
        if name in os.environ
    }
    for directory in ("run", "state", "home"):
        (tmp_path / directory).mkdir(mode=0o700)
    return Ingle(
        {
            **kept,
            "HOME": str(tmp_path / "home"),
            "XDG_RUNTIME_DIR": str(tmp_path / "run"),
            "INGLE_MODE": "user",
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }
    )


@pytest.fixture
async def with_an_agent(isolated: Ingle, tmp_path: Path) -> AsyncIterator[tuple[Ingle, int]]:
    """The command line with a server whose every VM is an agent on this host, and the agent's pid."""
    agent = await asyncio.create_subprocess_exec(
        agent_binary(), "--listen", f"unix:{tmp_path}/agent.sock", stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout is not None
    await agent.stdout.readline()
    async with behind_a_gate(one_vm_server(OneVm(f"{tmp_path}/agent.sock")), tmp_path) as address:
        yield isolated.with_variables(INGLE_SOCKET=address.removeprefix("unix:")), agent.pid
    agent.kill()
    await agent.communicate()


@pytest.fixture
def full_disk() -> Iterator[int]:
    """A file descriptor that takes nothing."""
    with Path("/dev/full").open("wb") as full:
        yield full.fileno()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server that is listening."""
    known = World()
    server = new_server(known, f"unix:{tmp_path}/api.sock")
    await server.start()
    yield known
    await server.stop(None)


@pytest.fixture
def ingle(isolated: Ingle, world: World, tmp_path: Path) -> Ingle:
    """The command line, and that server."""
    return isolated.with_variables(INGLE_SOCKET=str(tmp_path / "api.sock"))
