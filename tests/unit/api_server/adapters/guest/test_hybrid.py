"""The way to an agent behind Firecracker's vsock, over a socket at which a test answers in the VMM's place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ingle.api_server.adapters.guest import Dialler, hybrid
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentEndpoint, HybridVsockAddress

from .conftest import Behaviour, impostor_at

PORT = 1024


@asynccontextmanager
async def vmm(root: Path, behaviour: Behaviour) -> AsyncIterator[HybridVsockAddress]:
    """In a directory whose path is longer than a socket's may be."""
    directory = root / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    (root / "short").symlink_to(directory)
    async with impostor_at(root / "short" / "agent.sock", behaviour):
        yield HybridVsockAddress(str(directory / "agent.sock"), PORT)


@pytest.mark.parametrize(
    "pieces",
    [[b"OK 1073741824\n"], [b"OK 1073741824\nhello"], [b"O", b"K 1", b"\n", b"hel", b"lo"], [b"OK 1", b"\nhello"]],
    ids=lambda pieces: b"|".join(pieces).decode(),
)
async def test_the_port_is_asked_for_and_what_the_agent_says_then_is_all_there(
    tmp_path: Path, pieces: list[bytes]
) -> None:
    asked = []

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(100))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with vmm(tmp_path, answers) as address:
        stream = await hybrid.connect(address)
        said = b""
        while piece := await asyncio.get_running_loop().sock_recv(stream, 100):
            said += piece
        stream.close()
    assert asked == [b"CONNECT 1024\n"]
    assert said == b"".join(pieces).partition(b"\n")[2]


@pytest.mark.parametrize(
    ("said", "why"), [(b"", "does not listen"), (b"OK", "another protocol"), (b"NO\n", "another"), (b"O" * 99, "anoth")]
)
async def test_who_answers_otherwise_is_not_spoken_to(tmp_path: Path, said: bytes, why: str) -> None:
    heard = b""

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        await reader.readline()
        writer.write(said)
        if len(said) != 2:
            writer.write_eof()
            with suppress(ConnectionError):
                heard = await reader.read()

    async with vmm(tmp_path, answers) as address:
        with pytest.raises(GuestError, match=why) as caught:
            await Dialler().channel(AgentEndpoint(address, b"t" * 32)).ping()
    assert caught.value.reason is Reason.GUEST_UNREACHABLE
    assert address.path in caught.value.message
    assert heard == b""


async def test_a_guest_that_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid, "_ANSWER_SECONDS", 0.05)

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with vmm(tmp_path, says_nothing) as address:
        with pytest.raises(GuestError, match="nothing was said in") as caught:
            await Dialler().channel(AgentEndpoint(address)).ping()
    assert caught.value.reason is Reason.GUEST_UNREACHABLE


async def test_what_a_vmm_that_has_ended_left_is_nobody(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with vmm(tmp_path, serve) as address:
        pass
    with pytest.raises(GuestError, match="does not answer"):
        await Dialler().channel(AgentEndpoint(address)).ping()
