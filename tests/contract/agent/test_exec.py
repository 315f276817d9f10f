"""What a command gets from the agent, and what the caller gets of the command."""

import asyncio
import os
import pwd
import signal
from pathlib import Path

import pytest

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import ExecSpec, Exited, Input, InputEnd, Signal, Started, Stderr, Stdout
from ingle.api_server.ports.guest import GuestChannel

from .conftest import Agent, Run


@pytest.mark.parametrize("code", [0, 1, 42, 126, 127, 128, 255])
async def test_exit_code_is_the_commands_own(run: Run, code: int) -> None:
    assert (await run("sh", "-c", f"exit {code}")).exited == Exited(code)


async def test_death_by_signal_is_128_and_the_signal(run: Run) -> None:
    assert (await run("sh", "-c", "kill -TERM $$")).exited == Exited(143, signal=15)


async def test_stdout_and_stderr_stay_apart(run: Run) -> None:
    result = await run("sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


async def test_five_megabytes_of_any_bytes_come_back_as_they_went(run: Run) -> None:
    data = os.urandom(5_000_000)
    result = await run("cat", stdin=data)
    assert result.stdout == data
    assert result.exited == Exited(0)


async def test_output_is_whole_however_fast_the_command_ends(run: Run) -> None:
    result = await run("sh", "-c", "head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2")
    assert (len(result.stdout), len(result.stderr)) == (3_000_000, 1_000_000)


async def test_without_stdin_a_command_sees_the_end_of_input(run: Run) -> None:
    assert (await run("cat")).exited == Exited(0)


async def test_empty_stdin_is_an_end_of_input_too(run: Run) -> None:
    assert (await run("wc", "-c", stdin=b"")).stdout.strip() == b"0"


async def test_input_that_the_command_does_not_take_goes_nowhere(run: Run) -> None:
    result = await run("head", "-c", "10", stdin=b"0123456789" * 1_000_000)
    assert (result.stdout, result.exited) == (b"0123456789", Exited(0))


async def test_input_arrives_before_its_end(channel: GuestChannel) -> None:
    async with channel.exec(ExecSpec(("cat",), stdin=True)) as session:
        events = session.events()
        assert isinstance(await anext(events), Started)
        for word in (b"one", b"two"):
            await session.say(Input(word))
            assert await anext(events) == Stdout(word)
        await session.say(InputEnd())
        assert await anext(events) == Exited(0)


async def test_started_comes_first_and_exited_last(channel: GuestChannel) -> None:
    async with channel.exec(ExecSpec(("sh", "-c", "echo $$; echo >&2"))) as session:
        first, *between, last = [event async for event in session.events()]
    assert isinstance(first, Started)
    assert Stdout(f"{first.pid}\n".encode()) in between
    assert Stderr(b"\n") in between
    assert last == Exited(0)


async def test_environment_is_a_login_with_the_callers_variables_over_it(run: Run) -> None:
    me = pwd.getpwuid(os.geteuid())
    printed = (await run("env", env={"COLOUR": "ember = red", "SHELL": "/bin/other"})).stdout.decode().splitlines()
    environment = dict(line.split("=", 1) for line in printed)
    assert environment == {
        "HOME": me.pw_dir,
        "USER": me.pw_name,
        "LOGNAME": me.pw_name,
        "SHELL": "/bin/other",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "COLOUR": "ember = red",
    }


async def test_command_is_looked_up_in_its_own_path(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "only-here"
    script.write_text("#!/bin/sh\necho found\n")
    script.chmod(0o755)
    assert (await run("only-here", env={"PATH": f"/nowhere:{tmp_path}"})).stdout == b"found\n"


async def test_working_directory(run: Run, tmp_path: Path) -> None:
    assert (await run("pwd", working_directory=str(tmp_path))).stdout.decode() == f"{tmp_path}\n"
    assert (await run("pwd")).stdout.decode() == f"{pwd.getpwuid(os.geteuid()).pw_dir}\n"


async def test_arguments_arrive_as_they_are(run: Run) -> None:
    arguments = ["", "two words", "$HOME `id` *", "ünï\ncode", "-n"]
    result = await run("printf", "%s\\0", *arguments)
    assert result.stdout.decode().split("\0")[:-1] == arguments


async def test_user_by_name_and_by_number(run: Run) -> None:
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    for reference in (user.pw_name, str(user.pw_uid)):
        result = await run("sh", "-c", "id -u; id -g; echo $USER", user=reference, working_directory="/")
        assert result.stdout.decode().split() == [str(user.pw_uid), str(user.pw_gid), user.pw_name]


@pytest.mark.parametrize("umask", [None, 0o77], ids=["as it is", "with a umask"])
async def test_the_streams_of_any_user_may_be_opened_by_name(run: Run, umask: int | None) -> None:
    script = "cat /dev/stdin >/dev/stdout; echo error >/proc/self/fd/2"
    result = await run("sh", "-c", script, user="nobody", stdin=b"input\n", umask=umask)
    assert (result.stdout, result.stderr, result.exited) == (b"input\n", b"error\n", Exited(0))


async def test_a_command_is_alone_in_its_own_session(run: Run) -> None:
    fields = (await run("cat", "/proc/self/stat")).stdout.decode().split()
    pid, _, _, _, group, session, terminal = fields[:7]
    assert (group, session, terminal) == (pid, pid, "0")


async def test_only_the_standard_streams_are_open_in_a_command(run: Run) -> None:
    result = await run("sh", "-c", "ls /proc/$$/fd", stdin=b"")
    assert (
        {"0", "1", "2"} <= set(result.stdout.decode().split()) <= {"0", "1", "2", "10", "255"}
    )  # 10, 255: the shell's


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGWINCH, 34, 50, 64])
async def test_a_signal_reaches_the_whole_group(channel: GuestChannel, number: int) -> None:
    child = f'trap "echo child; exit" {number}; echo ready; while :; do sleep 0.01; done'
    script = f"trap 'echo parent; exit 7' {number}; sh -c '{child}' & wait; wait"
    async with channel.exec(ExecSpec(("sh", "-c", script))) as session:
        output, code = b"", None
        async for event in session.events():
            match event:
                case Stdout(data):
                    output += data
                    if data == b"ready\n":
                        await session.say(Signal(number))
                case Exited(exit_code):
                    code = exit_code
    assert sorted(output.split()) == [b"child", b"parent", b"ready"]
    assert code == 7


def ignored_from_the_start(agent: Agent) -> set[int]:
    """What the agent ignores, and so its commands: SIGHUP below nohup(1), 32 and 33 below make(1)."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


async def test_every_signal_there_is_can_be_sent(agent: Agent, channel: GuestChannel) -> None:
    ignored = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH} | ignored_from_the_start(agent)
    stopping = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}

    async def send(number: int) -> None:
        async with channel.exec(ExecSpec(("sleep", "1000"))) as session:
            events = session.events()
            await anext(events)
            await session.say(Signal(number))
            if number in ignored | stopping:
                await session.say(Signal(signal.SIGKILL))
                number = signal.SIGKILL
            assert await anext(events) == Exited(128 + number, signal=number)

    # 32 and 33 are glibc's own, but the kernel's all the same.
    await asyncio.gather(*(send(number) for number in range(1, 65)))


async def test_after_its_input_has_ended_a_command_goes_on_and_hears_signals(channel: GuestChannel) -> None:
    script = "exec 2>&-; trap 'echo caught; exit 7' USR1; cat; echo end; while :; do sleep 0.01; done"
    async with channel.exec(ExecSpec(("sh", "-c", script), stdin=True)) as session:
        events = session.events()
        await anext(events)
        await session.say(Input(b"in\n"))
        assert await anext(events) == Stdout(b"in\n")
        await session.say(InputEnd())
        assert await anext(events) == Stdout(b"end\n")
        await session.say(Signal(signal.SIGUSR1))
        assert [event async for event in events] == [Stdout(b"caught\n"), Exited(7)]


@pytest.mark.parametrize(
    ("argv", "options", "reason", "says"),
    [
        (("no-such-command",), {}, Reason.COMMAND_NOT_FOUND, "no-such-command"),
        (("/no/such/file",), {}, Reason.COMMAND_NOT_FOUND, "/no/such/file"),
        (("/etc/passwd",), {}, Reason.COMMAND_NOT_EXECUTABLE, "/etc/passwd"),
        (("/etc",), {}, Reason.COMMAND_NOT_EXECUTABLE, "/etc"),
        (("x" * 100_000,), {}, Reason.COMMAND_NOT_FOUND, "xxx"),
        (("true",), {"user": "é" * 100_000}, Reason.GUEST_USER_NOT_FOUND, "no user"),
        (("true",), {"working_directory": "/" + "x" * 100_000}, Reason.GUEST_DIRECTORY_NOT_FOUND, "no directory"),
        (("true",), {"user": "no-such-user"}, Reason.GUEST_USER_NOT_FOUND, "no-such-user"),
        (("true",), {"working_directory": "/no/such/dir"}, Reason.GUEST_DIRECTORY_NOT_FOUND, "/no/such/dir"),
        (("true",), {"working_directory": "/etc/passwd"}, Reason.GUEST_DIRECTORY_NOT_FOUND, "/etc/passwd"),
        (("true",), {"working_directory": "relative"}, Reason.INVALID_ARGUMENT, "relative"),
        ((), {}, Reason.INVALID_ARGUMENT, "argv"),
        (("",), {}, Reason.INVALID_ARGUMENT, "argv"),
        (("true",), {"env": {"A=B": "c"}}, Reason.INVALID_ARGUMENT, "A=B"),
    ],
)
async def test_what_cannot_start_is_told_by_reason(
    run: Run, argv: tuple[str, ...], options: dict[str, object], reason: Reason, says: str
) -> None:
    with pytest.raises(GuestError, match=says) as caught:
        await run(*argv, **options)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("content", "says"), [("#!/no/such/interpreter\n", "interpreter"), ("no magic at all\n", "not a program")]
)
async def test_files_that_only_look_executable(run: Run, tmp_path: Path, content: str, says: str) -> None:
    script = tmp_path / "script"
    script.write_text(content)
    script.chmod(0o755)
    with pytest.raises(GuestError, match=says) as caught:
        await run(str(script))
    assert caught.value.reason is Reason.COMMAND_NOT_EXECUTABLE


async def test_fifty_at_once_get_their_own_output_and_code(run: Run) -> None:
    results = await asyncio.gather(*(run("sh", "-c", f"echo {n}; cat; exit {n}", stdin=b"%d" % n) for n in range(50)))
    for n, result in enumerate(results):
        assert result.stdout == b"%d\n%d" % (n, n)
        assert result.exited == Exited(n)
