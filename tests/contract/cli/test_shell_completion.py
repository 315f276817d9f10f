"""TAB in a real bash, zsh and fish."""

import asyncio
import shlex
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from contract.cli.conftest import Ingle
from contract.cli.world import OP_ID, World
from ingle.v1 import operation_pb2

DISK_OPTIONS = ["--disk-backend", "--disk-bandwidth", "--disk-iops", "--disk-size"]


def write_launcher(bin_directory: Path) -> None:
    launcher = bin_directory / "ingle"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ingle.cli "$@"\n')
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)


async def completions(ingle: Ingle, bin_directory: Path, *words: str) -> list[str]:
    """What bash would offer for the last of the words."""
    write_launcher(bin_directory)
    script = f"""
        source <(ingle completion bash)
        COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
        "$(complete -p ingle | sed 's/.*-F \\([^ ]*\\).*/\\1/')" ingle
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    bash = await asyncio.create_subprocess_exec(
        "bash",
        "--norc",
        "-c",
        script,
        env={**ingle.environment, "PATH": f"{bin_directory}:{ingle.environment['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await bash.communicate()
    assert err == b""
    return sorted(out.decode(errors="surrogateescape").split())


@asynccontextmanager
async def typing(ingle: Ingle, bin_directory: Path) -> AsyncIterator["pexpect.spawn[str]"]:
    """A bash on a terminal, that knows how to complete."""
    write_launcher(bin_directory)
    environment = {**ingle.environment, "PATH": f"{bin_directory}:{ingle.environment['PATH']}", "TERM": "dumb"}
    bash = pexpect.spawn(
        "bash", ["--norc", "--noprofile"], env=environment, encoding="utf-8", timeout=20, dimensions=(24, 400)
    )
    try:
        bash.send("source <(ingle completion bash); echo rea''dy\n")
        await asyncio.to_thread(bash.expect_exact, "\nready")
        yield bash
    finally:
        bash.close(force=True)


async def test_bash_completes_commands(ingle: Ingle, tmp_path: Path) -> None:
    assert await completions(ingle, tmp_path, "ingle", "vm", "st") == ["start", "stats", "stop"]


async def test_bash_completes_what_can_be_pulled(ingle: Ingle, tmp_path: Path) -> None:
    assert await completions(ingle, tmp_path, "ingle", "image", "pull", "debian:t") == ["debian:trixie"]


async def test_bash_completes_options(ingle: Ingle, tmp_path: Path) -> None:
    assert await completions(ingle, tmp_path, "ingle", "vm", "run", "--disk") == DISK_OPTIONS


async def test_bash_completes_names_of_vms_and_images_from_the_running_server(
    ingle: Ingle, world: World, tmp_path: Path
) -> None:
    for name in ("web", "worker", "db"):
        world.add_vm(name)
    assert await completions(ingle, tmp_path, "ingle", "vm", "exec", "w") == ["web", "worker"]
    assert await completions(ingle, tmp_path, "ingle", "vm", "stop", "web", "d") == ["db"]
    assert await completions(ingle, tmp_path, "ingle", "vm", "stop", "web", "") == ["db", "worker"]
    assert await completions(ingle, tmp_path, "ingle", "vm", "create", "--image", "b") == ["base"]


async def test_a_name_with_a_colon_is_completed_on_the_command_line(ingle: Ingle, world: World, tmp_path: Path) -> None:
    async with typing(ingle, tmp_path) as bash:
        bash.send("ingle vm create --image debian:b\t")
        await asyncio.to_thread(bash.expect_exact, "debian:bookworm")


async def test_the_vm_of_a_path_is_completed_without_a_space(ingle: Ingle, world: World, tmp_path: Path) -> None:
    world.add_vm("web")
    assert await completions(ingle, tmp_path, "ingle", "vm", "cp", "w") == ["web:"]
    async with typing(ingle, tmp_path) as bash:
        bash.send("ingle vm cp we\t/etc")
        await asyncio.to_thread(bash.expect_exact, "web:/etc")


async def test_what_a_shell_would_take_apart_is_quoted(ingle: Ingle, world: World, tmp_path: Path) -> None:
    world.add_vm("web")
    async with typing(ingle, tmp_path) as bash:
        bash.send("ingle vm file cat web /srv/my\t")
        await asyncio.to_thread(bash.expect_exact, r"/srv/my\ file\*.txt")
        bash.send("\x15ingle vm file cat web '/srv/my\t")
        await asyncio.to_thread(bash.expect_exact, "'/srv/my file*.txt'")


async def test_operations_signals_ports_and_users_are_completed(ingle: Ingle, world: World, tmp_path: Path) -> None:
    world.add_vm("web")
    world.operations.append(operation_pb2.Operation(id=OP_ID))
    for typed, offered in (
        ("operation show op", [OP_ID]),
        ("vm kill --signal K", ["KILL"]),
        ("vm forward web ", ["80"]),
        ("vm shell web -u w", ["www-data"]),
    ):
        assert await completions(ingle, tmp_path, "ingle", *typed.split(" ")) == offered, typed
    without = ingle.with_variables(INGLE_SOCKET="/nonexistent")
    assert await completions(without, tmp_path, "ingle", "vm", "exec", "-u", "r") == ["root"]


async def test_without_a_server_nothing_is_offered_and_nothing_said(isolated: Ingle, tmp_path: Path) -> None:
    assert await completions(isolated, tmp_path, "ingle", "vm", "exec", "") == []


async def offered_by_fish(ingle: Ingle, bin_directory: Path, line: str) -> list[str]:
    """What a real fish would offer at the end of the line, descriptions apart."""
    write_launcher(bin_directory)
    fish = await asyncio.create_subprocess_exec(
        "fish",
        "--no-config",
        "-c",
        f"ingle completion fish | source; complete -C {shlex.quote(line)}",
        env={**ingle.environment, "PATH": f"{bin_directory}:{ingle.environment['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await fish.communicate()
    assert err == b""
    return sorted(line.partition("\t")[0] for line in out.decode().splitlines())


async def test_fish_completes_commands_names_and_paths(ingle: Ingle, world: World, tmp_path: Path) -> None:
    for name in ("web", "worker"):
        world.add_vm(name)
    for line, offered in (
        ("ingle vm st", ["start", "stats", "stop"]),
        ("ingle vm run --disk", DISK_OPTIONS),
        ("ingle vm stop web w", ["worker"]),
        ("ingle vm create --image debian:b", ["debian:bookworm"]),
        ("ingle vm cp we", ["web:"]),
    ):
        assert await offered_by_fish(ingle, tmp_path, line) == offered, line


async def test_fish_offers_files_where_nothing_else_can_be_meant(isolated: Ingle, tmp_path: Path) -> None:
    (tmp_path / "only.tar").touch()
    offered = await offered_by_fish(isolated, tmp_path, f"ingle kernel import {tmp_path}/on")
    assert offered == [f"{tmp_path}/only.tar"]


@asynccontextmanager
async def zsh_on_a_terminal(ingle: Ingle, bin_directory: Path, load: str) -> AsyncIterator["pexpect.spawn[str]"]:
    """A real zsh whose completion system is on; `load` brings ours."""
    write_launcher(bin_directory)
    environment = {**ingle.environment, "PATH": f"{bin_directory}:{ingle.environment['PATH']}", "TERM": "dumb"}
    zsh = pexpect.spawn("zsh", ["-f"], env=environment, encoding="utf-8", timeout=30, dimensions=(24, 400))
    try:
        zsh.send(f"unsetopt zle_bracketed_paste; autoload -Uz compinit; {load}; echo rea''dy\n")
        await asyncio.to_thread(zsh.expect_exact, "\nready")
        yield zsh
    finally:
        zsh.close(force=True)


SOURCED = "compinit -u -D; source <(ingle completion zsh)"
INSTALLED = 'mkdir f; ingle completion zsh >f/_ingle; fpath=("$PWD/f" $fpath); compinit -u -D'


@pytest.mark.parametrize("load", [SOURCED, INSTALLED], ids=["sourced", "installed"])
async def test_zsh_completes_commands_and_names_however_it_was_loaded(
    ingle: Ingle, world: World, tmp_path: Path, load: str
) -> None:
    world.add_vm("web")
    async with zsh_on_a_terminal(ingle, tmp_path, f"cd {tmp_path}; {load}") as zsh:
        zsh.send("ingle vm upd\tw\t--restart")
        await asyncio.to_thread(zsh.expect, r"ingle vm update[ \x08]+web[ \x08]+--restart")


async def test_zsh_takes_names_for_words_and_goes_on_behind_the_vm_of_a_path(
    ingle: Ingle, world: World, tmp_path: Path
) -> None:
    world.add_vm("web")
    async with zsh_on_a_terminal(ingle, tmp_path, SOURCED) as zsh:
        zsh.send("ingle vm cp we\t/etc")
        await asyncio.to_thread(zsh.expect_exact, "web:/etc")
        zsh.send("\x15ingle vm file cat web /srv/my\t")
        await asyncio.to_thread(zsh.expect_exact, r"/srv/my\ file\*.txt")
        zsh.send("\x15ingle vm create --image debian:b\t")
        await asyncio.to_thread(zsh.expect_exact, "debian:bookworm")
