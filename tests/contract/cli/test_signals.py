"""A signal that ends the command line: silently, whenever it comes."""

import asyncio
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contract.cli.conftest import Ingle
from contract.cli.world import World

_OURS = "ingle.cli.signals"


def end_while_loading(ingle: Ingle, number: int, modules: int) -> tuple[int, str]:
    """The signal comes when so many modules have been loaded since the first of ours: exit code, and what was said."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "ingle.cli", "vm", "list"],
        env=dict(ingle.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said, ours = [], False
    for line in process.stderr:
        ours = ours or line.split()[-1] == _OURS
        if ours and not modules:
            process.send_signal(number)
        modules -= ours
        if not line.startswith("import time:"):
            said.append(line)
    process.communicate()
    return process.returncode, "".join(said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_while_modules_are_loaded_it_leaves_without_a_word(
    isolated: Ingle, tmp_path: Path, number: signal.Signals
) -> None:
    path = str(tmp_path / "silent.sock")
    with socket.create_server(path, family=socket.AF_UNIX):
        ingle = isolated.with_variables(INGLE_SOCKET=path)
        for modules in range(1, 180, 20):
            assert end_while_loading(ingle, number, modules) == (128 + number, ""), modules


def test_the_packages_command_is_silent_at_whatever_instant_it_is_interrupted(
    isolated: Ingle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what Python says by itself, before the command has done its first lines."""
    scripts = Path(__file__).parents[3] / "scripts"
    monkeypatch.syspath_prepend(str(scripts))
    start = runpy.run_path(str(scripts / "deb_files.py"))["START"]
    command = tmp_path / "command"
    command.write_text(start.format(module="ingle.cli.__main__", function="main"))
    dice = random.Random(7)
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, command, "version"],
            env=dict(isolated.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(dice.uniform(0, 0.3))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert "ingle" not in said
        if not said:
            assert process.returncode in {0, -signal.SIGINT, 128 + signal.SIGINT}


@pytest.mark.parametrize(
    "arguments", [("vm", "list"), ("vm", "list", "--json"), ("vm", "logs", "web"), ("vm", "show", "web"), ("--help",)]
)
async def test_a_reader_that_has_left_is_no_fault(ingle: Ingle, world: World, arguments: tuple[str, ...]) -> None:
    world.add_vm("web")
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = await ingle.start(*arguments, stdout=write_end)
    os.close(write_end)
    _, said = await process.communicate()
    assert (process.returncode, said) == (128 + signal.SIGPIPE, b"")


async def test_who_follows_a_silent_log_leaves_with_its_reader(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    read_end, write_end = os.pipe()
    process = await ingle.start("vm", "logs", "-f", "--tail", "1", "web", stdout=write_end)
    os.close(write_end)
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(os.read, read_end, 100) == b"line 0 \xff\n"
        os.close(read_end)
        _, said = await process.communicate()
    assert (process.returncode, said) == (128 + signal.SIGPIPE, b"")


async def test_an_interrupted_pull_ends_as_any_other_command(ingle: Ingle, world: World) -> None:
    world.hold_creates = True
    process = await ingle.start("image", "pull", "debian:trixie")
    assert process.stderr is not None
    assert await process.stderr.readline() == b"Making the root disk\n"
    process.send_signal(signal.SIGINT)
    _, said = await process.communicate()
    assert process.returncode == 130
    assert b"fault" not in said


async def test_an_interrupted_restart_says_how_to_go_on(ingle: Ingle, world: World) -> None:
    world.add_vm("web")
    process = await ingle.start("vm", "restart", "web")
    async with asyncio.timeout(60):
        while not world.changes:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
    assert process.returncode == 130
    assert "stopped all the same" in said.decode()
    assert "ingle vm start web" in said.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interrupted_update_says_that_it_goes_on(ingle: Ingle, world: World, number: signal.Signals) -> None:
    world.add_vm("web")
    world.hold_updates = True
    process = await ingle.start("vm", "update", "--restart", "--memory", "1G", "web")
    async with asyncio.timeout(60):
        while not world.updates:
            await asyncio.sleep(0.01)
        process.send_signal(number)
        _, said = await process.communicate()
    assert process.returncode == 128 + number
    assert "what was begun goes on; to see: ingle vm show web" in said.decode()
