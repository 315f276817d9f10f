"""The command line ends amid a stream, or its input breaks: it never says that what it sent was all.

Through real gRPC to a real agent: the guest's files and processes are this host's."""

import asyncio
import os
import pty
import signal
from pathlib import Path

import pytest

from contract.cli.conftest import Ingle
from contract.cli.test_guest_commands import code_of, eventually, line_of

_OLD = b"old\n" * 1000
_BEGUN = b"new\n" * 100_000


@pytest.fixture
def ingle(with_an_agent: tuple[Ingle, int]) -> Ingle:
    return with_an_agent[0]


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A directory of the guest's."""
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest" / "file").write_bytes(_OLD)
    return tmp_path / "guest"


def _entries(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("append", [[], ["--append"]], ids=["replace", "append"])
async def test_a_write_that_is_interrupted_leaves_the_file_as_it_was(
    ingle: Ingle, guest: Path, append: list[str], number: signal.Signals
) -> None:
    process = await ingle.start(
        "vm", "file", "write", *append, "web", str(guest / "file"), stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(_BEGUN)
    await process.stdin.drain()
    await asyncio.sleep(0.5)  # most of it has arrived, or else the test is too easy
    process.send_signal(number)
    await process.wait()
    process.stdin.close()
    await eventually(lambda: _entries(guest) == ["file"])
    assert (guest / "file").read_bytes() == _OLD


async def test_a_write_whose_source_breaks_leaves_the_file_as_it_was(ingle: Ingle, guest: Path, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)  # reading it fails
    try:
        process = await ingle.start("vm", "file", "write", "web", str(guest / "file"), stdin=directory)
        assert await code_of(process) != 0
    finally:
        os.close(directory)
    await eventually(lambda: _entries(guest) == ["file"])
    assert (guest / "file").read_bytes() == _OLD


async def test_a_write_whose_terminal_is_hung_up_leaves_the_file_as_it_was(ingle: Ingle, guest: Path) -> None:
    ours, theirs = pty.openpty()
    process = await ingle.start("vm", "file", "write", "web", str(guest / "file"), stdin=theirs)
    os.close(theirs)
    os.write(ours, b"a line\n")
    await eventually(lambda: _entries(guest) != ["file"])  # it is under way
    os.close(ours)
    assert await code_of(process) == 1
    await eventually(lambda: _entries(guest) == ["file"])
    assert (guest / "file").read_bytes() == _OLD


async def test_a_write_that_is_refused_is_told_while_its_source_says_nothing(ingle: Ingle, guest: Path) -> None:
    process = await ingle.start("vm", "file", "write", "web", f"{guest}/none/file", stdin=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    async with asyncio.timeout(20):
        assert b"no such file or directory" in await process.stderr.read()
    assert await process.wait() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_command_sees_no_end_of_input_when_its_client_dies(
    ingle: Ingle, guest: Path, number: signal.Signals
) -> None:
    script = f"cd {guest}; echo ready; cat >seen; echo saw the end >eof"
    process = await ingle.start("vm", "exec", "-i", "web", "--", "sh", "-c", script, stdin=asyncio.subprocess.PIPE)
    assert await line_of(process) == b"ready\n"
    assert process.stdin is not None
    process.stdin.write(b"half a li")
    await process.stdin.drain()
    await eventually(lambda: (guest / "seen").exists() and (guest / "seen").read_bytes() != b"")
    process.send_signal(number)
    await process.wait()
    process.stdin.close()
    await asyncio.sleep(0.3)
    assert _entries(guest) == ["file", "seen"]


async def test_a_command_sees_no_end_of_input_when_its_terminal_is_hung_up(ingle: Ingle, guest: Path) -> None:
    ours, theirs = pty.openpty()
    script = f"cd {guest}; trap '' HUP; echo ready; cat >seen; echo saw the end >eof"
    process = await ingle.start("vm", "exec", "-i", "web", "--", "sh", "-c", script, stdin=theirs)
    os.close(theirs)
    assert await line_of(process) == b"ready\n"
    os.write(ours, b"a line\n")
    await eventually(lambda: (guest / "seen").exists() and (guest / "seen").read_bytes() != b"")
    os.close(ours)
    assert await code_of(process) == 128 + signal.SIGHUP
    await asyncio.sleep(0.3)
    assert _entries(guest) == ["file", "seen"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_leaves_a_guest_that_does_not_begin(
    with_an_agent: tuple[Ingle, int], number: signal.Signals
) -> None:
    ingle, agent = with_an_agent
    os.kill(agent, signal.SIGSTOP)
    try:
        process = await ingle.start("vm", "exec", "web", "--", "sleep", "1000")
        await eventually(lambda: _has_handler(process.pid, signal.SIGUSR1))
        process.send_signal(number)
        assert await code_of(process) == 128 + number
    finally:
        os.kill(agent, signal.SIGCONT)


def _has_handler(pid: int, number: signal.Signals) -> bool:
    caught = Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0]
    return bool(int(caught, 16) >> (number - 1) & 1)


async def test_a_timeout_holds_though_the_guest_is_frozen(with_an_agent: tuple[Ingle, int]) -> None:
    ingle, agent = with_an_agent
    process = await ingle.start("vm", "exec", "--timeout", "0.5s", "web", "--", "sh", "-c", "echo ready; sleep 1000")
    assert await line_of(process) == b"ready\n"
    os.kill(agent, signal.SIGSTOP)
    try:
        assert await code_of(process) == 124
    finally:
        os.kill(agent, signal.SIGCONT)


async def test_output_that_is_lost_is_told_and_can_be_waited_for(ingle: Ingle) -> None:
    command = ["sh", "-c", "(sleep 2.5; echo late) & exit 3"]
    cut = await ingle("vm", "exec", "web", "--", *command)
    assert (cut.code, cut.out) == (3, b"")
    assert "--wait-output" in cut.err
    whole = await ingle("vm", "exec", "--wait-output", "web", "--", *command)
    assert (whole.code, whole.out, whole.err) == (3, b"late\n", "")
