"""Terminals through the command line: a real pseudo-terminal here, the real agent behind the real service there."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pexpect  # type: ignore[import-untyped]
import pytest

from contract.agent.conftest import Agent, agent_binary, running_agent
from contract.cli.conftest import Ingle
from contract.cli.stand_in import VmService
from contract.cli.test_shell_completion import completions
from contract.cli.world import World
from contract.one_vm import OneVm, behind_a_gate, new_server
from ingle.api_server.rpc.interceptors import CallInterceptor
from ingle.v1 import vm_pb2_grpc

__all__ = ["agent_binary"]  # a fixture

DETACH = "\x10\x11"


@pytest.fixture
def interceptor() -> CallInterceptor:
    return CallInterceptor()


@pytest.fixture
def agent(agent_binary: Path, tmp_path: Path) -> Iterator[Agent]:
    with running_agent(agent_binary, tmp_path) as agent:
        yield agent


@pytest.fixture
async def server(
    isolated: Ingle, agent: Agent, tmp_path: Path, interceptor: CallInterceptor
) -> AsyncIterator[grpc.aio.Server]:
    server, world = new_server(OneVm(str(agent.path), {"web"}), interceptor), World()
    world.add_vm("web")
    vm_pb2_grpc.add_VmServiceServicer_to_server(VmService(world), server)  # type: ignore[abstract]
    async with behind_a_gate(server, tmp_path):
        yield server


@pytest.fixture
def ingle(isolated: Ingle, server: grpc.aio.Server, tmp_path: Path) -> Ingle:
    return isolated.with_variables(INGLE_SOCKET=str(tmp_path / "api.sock"), TERM="xterm", PS1="$ ")


@contextmanager
def terminal(ingle: Ingle, *arguments: str) -> Iterator["pexpect.spawn[str]"]:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ingle.cli", *arguments],
        env=dict(ingle.environment),
        encoding="utf-8",
        timeout=20,
        dimensions=(24, 100),
    )
    try:
        yield child
    finally:
        child.close(force=True)


@contextmanager
def shell(ingle: Ingle, *options: str) -> Iterator["pexpect.spawn[str]"]:
    """A shell without anybody's start-up files."""
    home = ingle.environment["HOME"]
    with terminal(ingle, "vm", "shell", "-e", f"HOME={home}", "-e", "HISTFILE=/dev/null", *options) as child:
        yield child


async def say(child: "pexpect.spawn[str]", line: str, expected: str) -> None:
    """Type a line, and wait for what comes of it; `expected` must not be in the line, which is echoed."""
    assert expected not in line
    child.sendline(line)
    await expect(child, expected)


async def expect(child: "pexpect.spawn[str]", text: str) -> None:
    await asyncio.to_thread(child.expect_exact, text)


async def ended(child: "pexpect.spawn[str]") -> tuple[int | None, str]:
    """Exit code, and all that was still to come."""
    await asyncio.to_thread(child.expect, pexpect.EOF)
    await asyncio.to_thread(child.wait)
    return child.exitstatus, child.before or ""


async def sessions(ingle: Ingle) -> dict[str, bool]:
    """Ids, and whether somebody is attached."""
    listed = json.loads((await ingle("vm", "session", "list", "--json", "web")).text)
    return {session["id"]: session["attached"] for session in listed}


async def until_sessions_are(ingle: Ingle, wanted: dict[str, bool]) -> None:
    async with asyncio.timeout(20):
        while await sessions(ingle) != wanted:
            await asyncio.sleep(0.01)


async def test_a_shell_is_a_login_shell_on_a_terminal_like_ours_and_its_exit_code_is_ours(ingle: Ingle) -> None:
    with shell(ingle, "web") as child:
        await say(child, "echo $0-$TERM; stty size", "sh-xterm\r\n24 100\r\n")
        child.sendline("exit 7")
        assert (await ended(child))[0] == 7
    assert await sessions(ingle) == {}


async def test_the_one_vm_that_runs_need_not_be_named(ingle: Ingle) -> None:
    with shell(ingle) as child:
        await say(child, "echo $((6 * 7))", "42\r\n")


@pytest.mark.parametrize(("key", "echo", "code"), [("\x03", "^C", 130), ("\x04", "", 0), ("\x1a", "^Z", 148)])
async def test_keys_with_a_meaning_have_it_in_the_guest(ingle: Ingle, key: str, echo: str, code: int) -> None:
    with shell(ingle, "web") as child:
        await say(child, "sh -c 'echo rea\"\"dy; exec cat'", "ready\r\n")
        child.send(key)
        await expect(child, echo)  # a terminal forgets what else was typed until then
        await say(child, "echo code-$?", f"code-{code}\r\n")


async def test_another_size_of_our_terminal_becomes_the_guests(ingle: Ingle) -> None:
    with shell(ingle, "web") as child:
        await say(child, "trap 'stty size' WINCH; echo rea''dy", "ready\r\n")
        child.setwinsize(40, 120)
        await say(child, "", "40 120")


async def test_a_full_screen_program_draws_as_it_likes(ingle: Ingle) -> None:
    drawing = "\x1b[?1049h\x1b[2J\x1b[5;10H\x1b[7m\u00e9\u2603\x1b[0m\x1b[?25l"
    with terminal(ingle, "vm", "exec", "-t", "web", "--", "printf", "%s", drawing) as child:
        assert await ended(child) == (0, drawing)


async def test_detaching_says_how_to_come_back_and_coming_back_shows_what_was_said(ingle: Ingle) -> None:
    with shell(ingle, "web") as child:
        await say(child, "x=kept; echo before-$x", "before-kept\r\n")
        child.send(DETACH)
        code, told = await ended(child)
    assert code == 0
    assert "ingle vm shell web" in told
    await until_sessions_are(ingle, {"init": False})
    with shell(ingle, "web") as child:
        await expect(child, "before-kept\r\n")
        await say(child, "echo again-$x", "again-kept\r\n")


async def test_a_client_that_is_killed_loses_nothing(ingle: Ingle) -> None:
    with shell(ingle, "web") as child:
        await say(child, "x=kept; echo before-$x", "before-kept\r\n")
        child.kill(signal.SIGKILL)
    await until_sessions_are(ingle, {"init": False})
    with shell(ingle, "web") as child:
        await expect(child, "before-kept\r\n")
        await say(child, "echo again-$x", "again-kept\r\n")


async def test_the_first_of_the_detach_keys_acts_by_itself_and_still_begins_the_sequence(ingle: Ingle) -> None:
    with shell(ingle, "web") as child:
        await say(child, "stty -echo -icanon; echo $((6 * 7)); head -c 1 | od -c", "42\r\n")
        child.send("\x10")
        await expect(child, "020")
        child.send("\x11")
        assert (await ended(child))[0] == 0


async def test_other_detach_keys_and_those_that_are_none(ingle: Ingle) -> None:
    with shell(ingle, "--detach-keys", "ctrl-a,d", "web") as child:
        child.send("echo a\x10\x11b-$((6 * 7))\r")  # ctrl-p recalls, ctrl-q is nothing: neither leaves
        await expect(child, "$")
        await say(child, "echo $((6 * 7))", "42\r\n")
        child.send("\x01d")
        assert (await ended(child))[0] == 0


async def test_a_second_viewer_is_told_of_steal_and_a_thief_is_told_to_the_first(ingle: Ingle) -> None:
    with shell(ingle, "web") as first:
        await say(first, "echo $((6 * 7))", "42\r\n")
        with shell(ingle, "web") as refused:
            code, told = await ended(refused)
            assert code == 125
            assert "--steal" in told
        with shell(ingle, "--steal", "web") as thief:
            await say(thief, "echo $((2 * 7))", "14\r\n")
            code, told = await ended(first)
            assert code == 125
            assert "took session init over" in told
            await say(thief, "echo $((3 * 7))", "21\r\n")


async def test_new_is_another_one(ingle: Ingle) -> None:
    with shell(ingle, "web") as first, shell(ingle, "--new", "web") as second:
        await say(first, "echo $((6 * 7))", "42\r\n")
        await say(second, "echo $((2 * 7))", "14\r\n")
        second.send(DETACH)
        _, told = await ended(second)
        found = re.search(r"ingle vm session attach web (s-\w+)", told)
        assert found
        await until_sessions_are(ingle, {"init": True, found[1]: False})
        with terminal(ingle, "vm", "session", "attach", "web", found[1]) as child:
            await expect(child, "14\r\n")
            child.sendline("exit 5")
            assert (await ended(child))[0] == 5


@pytest.mark.parametrize(
    "way_out",
    ["exit", "detach", "SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "stolen", "killed", "guest gone", "server gone"],
)
async def test_our_terminal_is_as_it_was_whichever_way_we_leave(
    ingle: Ingle, agent: Agent, server: grpc.aio.Server, tmp_path: Path, way_out: str
) -> None:
    run = f'{sys.executable} -m ingle.cli vm shell -e HOME="{tmp_path}" -e HISTFILE=/dev/null web'
    script = f'stty -g >"{tmp_path}/before"; {run}; stty -g >"{tmp_path}/after"; echo le""ft'
    child = pexpect.spawn("sh", ["-c", script], env=dict(ingle.environment), encoding="utf-8", timeout=20)
    try:
        await say(child, "echo $((6 * 7))", "42\r\n")
        match way_out:
            case "exit":
                child.sendline("exit")
            case "detach":
                child.send(DETACH)
            case "SIGINT" | "SIGQUIT" | "SIGTERM" | "SIGHUP":
                os.kill(_only_child(child.pid), getattr(signal, way_out))
            case "stolen":
                with shell(ingle, "--steal", "web") as thief:
                    await expect(thief, "42\r\n")
            case "killed":
                await ingle("vm", "session", "kill", "web", "init")
            case "guest gone":
                agent.process.kill()
            case "server gone":
                await server.stop(None)
        await expect(child, "left")
    finally:
        child.close(force=True)
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


def _only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@pytest.mark.parametrize(("command", "code"), [("exit 3", 3), ("kill -KILL $$", 137), ("echo quick", 0)])
async def test_exec_on_a_terminal_ends_with_the_commands_exit_code(ingle: Ingle, command: str, code: int) -> None:
    with terminal(ingle, "vm", "exec", "-it", "web", "--", "sh", "-c", f"test -t 0 || exit 99; {command}") as child:
        assert (await ended(child))[0] == code
    assert await sessions(ingle) == {}


async def test_exec_on_a_terminal_says_what_is_not_there_as_exec_does(ingle: Ingle) -> None:
    with terminal(ingle, "exec", "-t", "web", "no-such-command") as child:
        code, told = await ended(child)
    assert code == 127
    assert "no-such-command" in told


async def test_exec_on_a_terminal_ends_its_command_when_the_client_is_killed(ingle: Ingle) -> None:
    with terminal(ingle, "vm", "exec", "-t", "web", "--", "sh", "-c", "echo rea''dy; exec sleep 1000") as child:
        await expect(child, "ready")
        assert list((await sessions(ingle)).values()) == [True]
        child.kill(signal.SIGKILL)
    await until_sessions_are(ingle, {})


async def test_the_list_is_for_people_too_and_killing_is_for_good(ingle: Ingle) -> None:
    with shell(ingle, "web") as child:
        await say(child, "echo $((6 * 7))", "42\r\n")
        heading, row = (await ingle("vm", "session", "ls", "web")).text.splitlines()
        assert heading.split() == ["SESSION", "ATTACHED", "SIZE", "IDLE", "AGE", "COMMAND"]
        assert row.split()[:3] == ["init", "yes", "100x24"]
        assert (await ingle("vm", "session", "kill", "web", "init")).text == "init\n"
        assert (await ended(child))[0] == 128 + signal.SIGHUP
    again = await ingle("vm", "session", "kill", "web", "init")
    assert again.code == 1
    assert "no session" in again.err


async def test_without_a_terminal_nothing_is_started(ingle: Ingle) -> None:
    for arguments in (("shell", "web"), ("exec", "-t", "web", "--", "true"), ("session", "attach", "web", "init")):
        done = await ingle("vm", *arguments)
        assert done.code == 125
        assert "a terminal is needed" in done.err
    assert await sessions(ingle) == {}


async def test_wrong_usage_ends_with_2(ingle: Ingle) -> None:
    for arguments in (("exec", "-t", "--timeout", "1s", "web", "true"), ("shell", "--detach-keys", "ctrl-1", "web")):
        assert (await ingle("vm", *arguments)).code == 2


async def test_a_server_that_stops_is_told_with_the_way_back(ingle: Ingle, interceptor: CallInterceptor) -> None:
    with shell(ingle, "web") as child:
        await say(child, "x=kept; echo before-$x", "before-kept\r\n")
        interceptor.calls.end_endless()
        code, told = await ended(child)
        assert code == 125
        assert "the server was stopped" in told
        assert "remedy: ingle vm shell web" in told
    with shell(ingle, "web") as child:
        await say(child, "echo again-$x", "again-kept\r\n")
    with terminal(ingle, "vm", "exec", "-t", "web", "--", "sh", "-c", "echo rea''dy; exec sleep 1000") as child:
        await expect(child, "ready")
        interceptor.calls.end_endless()
        _, told = await ended(child)
        assert "vm session attach" not in told  # it has ended with us


async def test_tab_offers_the_sessions_of_the_vm(ingle: Ingle, tmp_path: Path) -> None:
    with shell(ingle, "web") as child:
        await say(child, "echo $((6 * 7))", "42\r\n")
        for command in ("attach", "kill"):
            assert await completions(ingle, tmp_path, "ingle", "vm", "session", command, "web", "") == ["init"]
