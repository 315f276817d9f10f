"""Nothing is said to whoever has an agent's port after its VMM: HELLO has the token, REQUEST the command."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.host.process import has_its_files, start_time_of
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentEndpoint, ExecSpec, Holder, TcpAddress
from ingle.api_server.ports.guest import GuestChannel


class Squatter:
    """Somebody on a loopback port, and all that was said to them."""

    def __init__(self) -> None:
        self.heard = b""
        self.left = asyncio.Event()

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard += await reader.read(-1)
        self.left.set()
        writer.close()


@pytest.fixture
async def squatter() -> AsyncIterator[tuple[Squatter, int]]:
    somebody = Squatter()
    async with await asyncio.start_server(somebody.listen, "127.0.0.1", 0) as server:
        yield somebody, server.sockets[0].getsockname()[1]


@pytest.fixture
def vmm() -> Iterator["subprocess.Popen[bytes]"]:
    """A process, of which only that matters."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


async def _stat(channel: GuestChannel) -> None:
    await channel.files.stat("/etc")


async def _exec(channel: GuestChannel) -> None:
    async with channel.exec(ExecSpec(("secret", "arguments"))):
        pass


async def _ping(channel: GuestChannel) -> None:
    await channel.ping()


@pytest.mark.parametrize("ask", [_ping, _exec, _stat])
@pytest.mark.parametrize("reaped", [True, False])
async def test_nothing_is_said_to_who_has_the_port_after_the_vmm(
    squatter: tuple[Squatter, int],
    vmm: "subprocess.Popen[bytes]",
    ask: Callable[[GuestChannel], Awaitable[None]],
    reaped: bool,
) -> None:
    somebody, port = squatter
    started = start_time_of(vmm.pid)
    assert started is not None
    channel = Dialler().channel(AgentEndpoint(TcpAddress("127.0.0.1", port, Holder(vmm.pid, started)), b"the token"))
    vmm.kill()
    await asyncio.to_thread(os.waitid, os.P_PID, vmm.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        vmm.poll()
    with pytest.raises(GuestError, match="its VMM has ended") as refused:
        await ask(channel)
    assert refused.value.reason is Reason.GUEST_UNREACHABLE
    await somebody.left.wait()
    assert somebody.heard == b""


async def test_a_vmm_that_lives_is_talked_to(squatter: tuple[Squatter, int], vmm: "subprocess.Popen[bytes]") -> None:
    somebody, port = squatter
    started = start_time_of(vmm.pid)
    assert started is not None
    vmm.send_signal(signal.SIGSTOP)  # a host that is busy
    channel = Dialler().channel(AgentEndpoint(TcpAddress("127.0.0.1", port, Holder(vmm.pid, started)), b"the token"))
    with pytest.raises(GuestError):
        await channel.ping(0.5)
    await somebody.left.wait()
    assert b"the token" in somebody.heard


def test_another_process_with_the_same_pid_has_nothing_of_it(vmm: "subprocess.Popen[bytes]") -> None:
    started = start_time_of(vmm.pid)
    assert started is not None
    assert has_its_files(vmm.pid, started)
    assert not has_its_files(vmm.pid, started - 1)
