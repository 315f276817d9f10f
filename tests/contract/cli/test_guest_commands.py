"""`vm run` and `vm exec`: a guest command behaves as if it ran here."""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from contract.cli.conftest import Ingle
from contract.cli.world import OP_ID, World
from ingle.v1 import error_pb2, guest_pb2


@pytest.fixture
def web(world: World) -> str:
    return world.add_vm("web").name


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def line_of(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return await process.stdout.readline()


async def code_of(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(20):
        await process.communicate()
    assert process.returncode is not None
    return process.returncode


async def test_streams_stay_apart_and_the_exit_code_is_the_commands(ingle: Ingle, web: str) -> None:
    ended = await ingle("vm", "exec", web, "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (ended.code, ended.out, ended.err) == (42, b"out\n", "err\n")


async def test_the_beginning_of_an_id_is_looked_up_once_and_a_name_never(ingle: Ingle, world: World, web: str) -> None:
    (vm_id,) = world.vms
    assert (await ingle("exec", vm_id[:5], "true")).code == 0
    assert world.looked_up == [vm_id[:5]]
    assert (await ingle("exec", vm_id, "true")).code == (await ingle("exec", web, "true")).code == 0
    assert world.looked_up == [vm_id[:5]]
    assert [start.vm for start in world.execs] == [vm_id, vm_id, web]


async def test_the_dashes_may_be_left_out_and_options_of_the_command_are_its_own(ingle: Ingle, web: str) -> None:
    assert (await ingle("exec", web, "echo", "-e", "--", "x")).out == b"-- x\n"


async def test_arguments_are_never_joined_into_a_shell_line(ingle: Ingle, web: str) -> None:
    assert (await ingle("vm", "exec", web, "--", "printf", "%s|", "a b", "", "$HOME", "*")).out == b"a b||$HOME|*|"


async def test_environment_and_directory(ingle: Ingle, web: str) -> None:
    ended = await ingle("vm", "exec", "-e", "A=1 2", "-w", "/tmp", web, "--", "sh", "-c", 'echo "$A"; pwd')
    assert ended.out == b"1 2\n/tmp\n"


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-command", 127), ("/etc/passwd", 126)], ids=["not found", "not executable"]
)
async def test_what_cannot_be_started_ends_as_in_a_shell(ingle: Ingle, web: str, command: str, code: int) -> None:
    ended = await ingle("vm", "exec", web, "--", command)
    assert ended.code == code
    assert command in ended.err


async def test_failures_of_ingles_end_with_125(ingle: Ingle, world: World) -> None:
    assert (await ingle("vm", "exec", "ghost", "--", "true")).code == 125
    world.create_error = error_pb2.Failure(reason=error_pb2.ERROR_REASON_VMM_FAILED, message="the VMM died")
    assert (await ingle("vm", "run", "--rm", "--", "true")).code == 125


async def test_five_megabytes_of_anything_pass_unchanged(ingle: Ingle, web: str) -> None:
    data = os.urandom(5_000_000)
    ended = await ingle("vm", "exec", web, "--", "cat", stdin=data)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == data


async def test_stdin_from_a_file_and_none_at_all(ingle: Ingle, web: str, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"from a file")
    with (tmp_path / "input").open() as file:
        process = await ingle.start("vm", "exec", web, "--", "cat", stdin=file.fileno())
    out, _ = await process.communicate()
    assert out == b"from a file"
    assert (await ingle("vm", "exec", "--no-stdin", web, "--", "cat", stdin=b"not for the guest")).out == b""


async def test_streams_that_were_closed_swallow_what_goes_there(ingle: Ingle, web: str) -> None:
    words = [sys.executable, "-m", "ingle.cli", "vm", "exec", web, "--", "sh", "-c", "echo out; cat; exit 5"]
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", f"{shlex.join(words)} <&- >&-", env=ingle.environment, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        _, said = await shell.communicate()
    assert (shell.returncode, said) == (5, b"")


async def test_a_command_that_ignores_its_stdin_still_ends(ingle: Ingle, web: str) -> None:
    assert (await ingle("vm", "exec", web, "--", "echo", "done", stdin=bytes(5_000_000))).out == b"done\n"


async def test_a_slow_reader_slows_the_command_at_constant_memory(ingle: Ingle, web: str) -> None:
    process = await ingle.start("vm", "exec", web, "--", "head", "-c", "200000000", "/dev/zero")
    assert process.stdout is not None
    received = 0
    while chunk := await process.stdout.read(1 << 20):
        received += len(chunk)
        if received < 10_000_000:
            await asyncio.sleep(0.01)
        if received < 190_000_000:  # afterwards it may have ended
            peak = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0])
            assert peak < 100_000, "KiB resident"
    assert (await code_of(process), received) == (0, 200_000_000)


async def test_a_reader_who_leaves_ends_it_quietly_and_the_command_dies(ingle: Ingle, world: World, web: str) -> None:
    reader, writer = os.pipe()
    process = await ingle.start("vm", "exec", web, "--", "yes", stdout=writer)
    os.close(writer)
    assert await asyncio.to_thread(os.read, reader, 2) == b"y\n"
    os.close(reader)
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert (process.returncode, said) == (128 + signal.SIGPIPE, b"")
    await eventually(lambda: not alive(world.processes[0]))


async def test_a_timeout_kills_the_command_and_ends_with_124(ingle: Ingle, world: World, web: str) -> None:
    ended = await ingle("vm", "exec", "--timeout", "200ms", web, "--", "sleep", "60")
    assert ended.code == 124
    assert "0.2 s" in ended.err
    await eventually(lambda: not alive(world.processes[0]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
async def test_signals_go_to_the_command(ingle: Ingle, web: str, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
    process = await ingle.start("vm", "exec", web, "--", "sh", "-c", script)
    assert await line_of(process) == b"ready\n"
    process.send_signal(number)
    assert await line_of(process) == f"got {name}\n".encode()
    assert await code_of(process) == 7


async def test_signals_ignored_from_the_start_stay_ignored(ingle: Ingle, web: str) -> None:
    """As under nohup."""
    script = "trap 'echo got HUP' HUP; trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    words = [sys.executable, "-m", "ingle.cli", "vm", "exec", web, "--", "sh", "-c", script]
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f"trap '' HUP; exec {shlex.join(words)}", env=ingle.environment, stdout=asyncio.subprocess.PIPE
    )
    assert await line_of(process) == b"ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    out, _ = await process.communicate()
    assert (process.returncode, out) == (7, b"")


async def test_a_second_interrupt_leaves_though_the_command_ignores_it(ingle: Ingle, world: World, web: str) -> None:
    script = "trap 'echo ignored' INT; echo ready; while :; do sleep 0.05; done"
    process = await ingle.start("vm", "exec", web, "--", "sh", "-c", script)
    assert await line_of(process) == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert await line_of(process) == b"ignored\n"
    process.send_signal(signal.SIGINT)
    assert await code_of(process) == 130
    await eventually(lambda: not alive(world.processes[0]))


async def test_signals_pass_though_nobody_reads_the_output(ingle: Ingle, web: str) -> None:
    script = "trap 'exit 7' TERM; yes & while :; do sleep 0.05; done"
    process = await ingle.start("vm", "exec", web, "--", "sh", "-c", script)
    assert await line_of(process) == b"y\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    await process.stdout.read()
    assert await code_of(process) == 7


async def test_a_detached_command_answers_its_pid_and_runs_on(ingle: Ingle, world: World, web: str) -> None:
    ended = await ingle("vm", "exec", "-d", web, "--", "sleep", "60", stdin=b"not for it")
    try:
        assert (ended.code, ended.text, ended.err) == (0, f"{world.processes[0]}\n", "")
        assert alive(world.processes[0])
        (start,) = world.execs
        assert (start.detach, start.open_stdin) == (True, False)
    finally:
        os.kill(world.processes[0], signal.SIGKILL)
    ended = await ingle("vm", "exec", "--detach", "--timeout", "1m", "--json", web, "--", "true")
    assert json.loads(ended.out) == {"pid": world.processes[1], "op_id": OP_ID}
    assert world.execs[1].timeout.seconds == 60


async def test_a_detached_command_that_cannot_start_ends_as_any_other(ingle: Ingle, web: str) -> None:
    ended = await ingle("vm", "exec", "-d", web, "--", "no-such-command")
    assert (ended.code, ended.out) == (127, b"")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-d", "-i"], "--detach"),
        (["-d", "-t"], "--detach"),
        (["--umask", "8"], "octal"),
        (["--umask", "1000"], "octal"),
        (["--ulimit", "files=1"], "nofile"),
        (["--ulimit", "nofile=2:1"], "above"),
        (["--ulimit", "nofile=1", "--ulimit", "nofile=2"], "twice"),
    ],
)
async def test_options_that_make_no_sense_are_refused_before_anything_starts(
    ingle: Ingle, world: World, web: str, options: list[str], says: str
) -> None:
    ended = await ingle("vm", "exec", *options, web, "--", "true")
    assert (ended.code, world.execs) == (2, [])
    assert says in ended.err
    if "-d" not in options:
        assert (await ingle("vm", "run", *options, "--", "true")).code == 2
        assert world.created == []


async def test_user_umask_and_limits_are_passed_on(ingle: Ingle, world: World, web: str) -> None:
    options = ["-u", "daemon:adm", "--umask", "027", "--ulimit", "nofile=10:20", "--ulimit", "core=unlimited"]
    wanted = [
        guest_pb2.ResourceLimit(resource=guest_pb2.RESOURCE_NOFILE, soft=10, hard=20),
        guest_pb2.ResourceLimit(resource=guest_pb2.RESOURCE_CORE, soft=2**64 - 1, hard=2**64 - 1),
    ]
    assert (await ingle("vm", "exec", *options, web, "--", "true")).code == 0
    assert (await ingle("vm", "run", *options, "--", "true")).code == 0
    assert (await ingle("vm", "exec", web, "--", "true")).code == 0
    for start in world.execs[:2]:
        assert (start.user, start.umask, list(start.limits)) == ("daemon:adm", 0o27, wanted)
    assert not world.execs[2].HasField("umask")


async def test_run_creates_a_vm_for_the_command_and_has_the_server_delete_it(ingle: Ingle, world: World) -> None:
    ended = await ingle("vm", "run", "--rm", "-e", "A=1", "-m", "512M", "--", "echo", "hello")
    assert (ended.code, ended.out) == (0, b"hello\n")
    (spec,) = world.created
    assert (spec.memory_bytes, dict(spec.env)) == (512 << 20, {"A": "1"})
    assert world.deleted_after_exec == ["made-up"]
    assert world.ephemeral == [True]  # however early we are killed


async def test_a_server_that_dies_amid_run_rm_leaves_no_vm(ingle: Ingle, world: World, tmp_path: Path) -> None:
    connections: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(tmp_path / "api.sock")
        connections.extend((writer, to_server))
        await asyncio.gather(_copy(reader, to_server), _copy(from_server, writer))

    async with await asyncio.start_unix_server(pass_on, tmp_path / "line.sock"):
        over_the_line = ingle.with_variables(INGLE_SOCKET=str(tmp_path / "line.sock"))
        process = await over_the_line.start("vm", "run", "--rm", "--", "sh", "-c", "echo ready; sleep 60")
        assert await line_of(process) == b"ready\n"
        for end in connections:
            end.transport.abort()
        assert await code_of(process) == 125
    assert world.changes == [("delete", "made-up")]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


async def test_output_that_cannot_be_written_is_told_and_ends_with_125(ingle: Ingle, web: str, full_disk: int) -> None:
    process = await ingle.start("vm", "exec", web, "--", "echo", "hello", stdout=full_disk)
    _, said = await process.communicate()
    assert (process.returncode, said) == (125, b"ingle: writing the output: No space left on device\n")


async def test_run_without_rm_keeps_the_vm(ingle: Ingle, world: World) -> None:
    assert (await ingle("run", "--name", "kept", "--", "true")).code == 0
    assert world.deleted_after_exec == []
    assert world.ephemeral == [False]


async def test_run_that_is_detached_prints_the_name(ingle: Ingle, world: World) -> None:
    ended = await ingle("vm", "run", "-d", "--name", "bare")
    assert (ended.code, ended.text, world.processes) == (0, "bare\n", [])
    assert json.loads((await ingle("vm", "run", "--detach", "--name", "other", "--json")).out)["name"] == "other"


async def test_what_a_detached_command_says_goes_where_logs_show_it(ingle: Ingle, world: World) -> None:
    ended = await ingle("vm", "run", "-d", "--name", "job", "--timeout", "1m", "--", "true", "and", "more")
    assert (ended.code, ended.text) == (0, "job\n")
    (start,) = world.execs
    assert (list(start.argv), start.detach, start.output_to_console) == (["true", "and", "more"], True, True)
    assert start.timeout.ToSeconds() == 60
    missing = await ingle("vm", "run", "-d", "--name", "none", "--", "no-such-command")
    assert missing.code == 127
    assert "ingle vm delete -f none" in missing.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_a_signal_ends_before_its_command_begins_says_that_the_vm_is_there(
    ingle: Ingle, world: World, number: signal.Signals
) -> None:
    world.hold_execs = True
    process = await ingle.start("vm", "run", "-d", "--name", "job", "--", "true")
    await eventually(lambda: bool(world.execs))
    process.send_signal(number)
    _, said = await process.communicate()
    assert process.returncode == 128 + number
    assert "ingle vm delete -f job" in said.decode()


async def test_a_run_that_fails_says_that_the_vm_is_there(ingle: Ingle, world: World) -> None:
    ended = await ingle("vm", "run", "--name", "job", "--", "no-such-command")
    assert ended.code == 127
    assert "ingle vm delete -f job" in ended.err
    assert "ingle vm delete" not in (await ingle("vm", "run", "--rm", "--", "no-such-command")).err


async def test_verbose_run_tells_stages_on_stderr_and_only_there(ingle: Ingle) -> None:
    ended = await ingle("vm", "run", "--rm", "-v", "--", "echo", "hello")
    assert ended.out == b"hello\n"
    assert [line.split()[2] for line in ended.err.splitlines()] == [
        "connect",
        "disk",
        "boot",
        "command",
        "clean",
        "in",
    ]


async def test_interrupting_a_create_cancels_it_and_ends_with_130(ingle: Ingle, world: World) -> None:
    world.hold_creates = True
    process = await ingle.start("vm", "run", "--rm", "-v", "--", "true")
    assert process.stderr is not None
    while b"disk" not in await process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    assert await code_of(process) == 130
    assert world.cancelled[0] == "by asking"
    assert world.processes == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_create_whose_client_dies_is_cancelled(ingle: Ingle, world: World, number: signal.Signals) -> None:
    world.hold_creates = True
    process = await ingle.start("vm", "create", "-v")
    assert process.stderr is not None
    while b"disk" not in await process.stderr.readline():
        pass
    process.send_signal(number)
    assert await code_of(process) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    await eventually(lambda: world.cancelled == ["by leaving"])


async def test_a_client_that_is_killed_takes_its_command_along(ingle: Ingle, world: World, web: str) -> None:
    process = await ingle.start("vm", "exec", web, "--", "sh", "-c", "echo ready; sleep 60")
    assert await line_of(process) == b"ready\n"
    process.kill()
    await code_of(process)
    await eventually(lambda: not alive(world.processes[0]))


async def test_exec_without_a_command_says_what_opens_a_shell(ingle: Ingle) -> None:
    for command in (("exec", "web"), ("vm", "exec", "my vm")):
        refused = await ingle(*command)
        assert refused.code == 2
        assert f"or the login shell: ingle shell {shlex.quote(command[-1])}" in refused.err
