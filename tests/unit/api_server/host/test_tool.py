"""Running tools: what they get, what is told when they fail, and that nothing of them stays."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from ingle.api_server.host.context import current_operation
from ingle.api_server.host.leftovers import kill_leftovers, kill_marked
from ingle.api_server.host.tool import Tools, require
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed

# A shell whose child leaves its process group and its session, as daemons do, and tells its pid.
LEAVES_THE_GROUP = 'setsid sh -c \'echo $$ > "$1.tmp"; mv "$1.tmp" "$1"; sleep 600\' sh "$1" & wait'


def alive(pid: int) -> bool:
    """Whether it runs; a dead process that nobody has waited for yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


async def pid_written_to(path: Path) -> int:
    while not path.exists():
        await asyncio.sleep(0.01)
    return int(path.read_text())


async def test_stdout_is_the_answer(tools: Tools) -> None:
    assert await tools.run(["printf", "a\\0b"]) == b"a\0b"


async def test_a_tool_has_no_stdin(tools: Tools) -> None:
    assert await tools.run(["cat"]) == b""


async def test_a_tool_runs_in_the_directory_it_is_given(tools: Tools, tmp_path: Path) -> None:
    assert (await tools.run(["pwd", "-P"], directory=tmp_path)).decode().strip() == str(tmp_path.resolve())


async def test_a_tool_carries_the_operation_and_the_state_directory(tools: Tools, tmp_path: Path) -> None:
    current_operation.set("op-0123456789ab")
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    env = json.loads(await tools.run([sys.executable, "-c", show], env={"MORE": "yes"}))
    assert env["INGLE_OPERATION"] == "op-0123456789ab"
    assert env["INGLE_STATE"] == str(tmp_path)
    assert env["MORE"] == "yes"
    assert env["LC_ALL"] == "C.UTF-8"


async def test_each_line_of_stderr_is_told_as_it_comes(tools: Tools) -> None:
    lines: list[str] = []
    await tools.run(["sh", "-c", "printf 'one\\ntwo\\rthree\\n\\nfour' >&2"], on_line=lines.append)
    assert lines == ["one", "two", "three", "four"]


async def test_output_larger_than_any_pipe_does_not_hang(tools: Tools) -> None:
    script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero | tr '\\0' x >&2"
    assert len(await tools.run(["sh", "-c", script])) == 3_000_000


async def test_a_failure_tells_the_end_of_stderr(tools: Tools) -> None:
    with pytest.raises(ToolFailed) as raised:
        await tools.run(["sh", "-c", "seq 100 >&2; exit 3"])
    assert raised.value.reason is Reason.TOOL_FAILED
    assert raised.value.message == "sh failed with exit code 3\n" + "\n".join(str(number) for number in range(91, 101))


async def test_a_failure_without_stderr_tells_the_end_of_stdout(tools: Tools) -> None:
    with pytest.raises(ToolFailed, match="what is wrong"):
        await tools.run(["sh", "-c", "echo what is wrong; exit 3"])


async def test_exit_codes_can_be_accepted(tools: Tools) -> None:
    assert await tools.run(["sh", "-c", "exit 3"], accept=(0, 3)) == b""


async def test_a_tool_that_was_killed_is_told_by_the_name_of_the_signal(tools: Tools) -> None:
    with pytest.raises(ToolFailed, match="sh was killed by SIGKILL"):
        await tools.run(["sh", "-c", "kill -KILL $$"])


async def test_a_full_disk_is_told_as_one(tools: Tools) -> None:
    with pytest.raises(HostProblem) as raised:
        await tools.run(["dd", "if=/dev/zero", "of=/dev/full", "count=1"])
    assert raised.value.reason is Reason.DISK_FULL


async def test_a_missing_program_is_told_with_its_package(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.api_server.host.tool.search_path", lambda: "/nowhere")
    with pytest.raises(HostProblem) as raised:
        await tools.run(["mke2fs"])
    assert raised.value.reason is Reason.DEPENDENCY_MISSING
    assert raised.value.remedy == "sudo apt install util-linux"  # setpriv comes first
    with pytest.raises(HostProblem) as raised:
        require("mke2fs")
    assert raised.value.remedy == "sudo apt install e2fsprogs"


def test_programs_in_sbin_are_found_though_a_users_path_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert require("mke2fs").endswith("sbin/mke2fs")


async def test_cancelling_kills_all_that_a_tool_started_and_waits_for_it(tools: Tools, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    task = asyncio.create_task(tools.run(["sh", "-c", LEAVES_THE_GROUP, "sh", file]))
    pid = await pid_written_to(file)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)


async def test_cancelling_twice_still_waits_for_the_death(tools: Tools, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    task = asyncio.create_task(tools.run(["sh", "-c", LEAVES_THE_GROUP, "sh", file]))
    pid = await pid_written_to(file)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)


async def test_a_line_callback_that_fails_ends_the_tool(tools: Tools) -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="hello"):
        await tools.run(["sh", "-c", "echo hello >&2; sleep 600"], on_line=refuse)


SERVER = """
import asyncio, sys
from pathlib import Path
from ingle.api_server.host.tool import Tools
asyncio.run(Tools(Path(sys.argv[1])).run(["sh", "-c", sys.argv[2], "sh", sys.argv[3]]))
"""


async def test_a_killed_server_takes_its_tools_along_and_the_next_finds_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(tmp_path), f'echo $$ > "$1.tool"; {LEAVES_THE_GROUP}', str(file)
    )
    escaped = await pid_written_to(file)
    tool = int(Path(f"{file}.tool").read_text())
    server.kill()
    await server.wait()
    while alive(tool):
        await asyncio.sleep(0.01)
    assert alive(escaped)
    assert await kill_leftovers(tmp_path / "of-another-server") == 0
    assert await kill_leftovers(tmp_path) >= 1
    assert not alive(escaped)


async def test_a_mark_is_the_whole_variable_not_a_part_of_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        "sleep", "600", env={**os.environ, "INGLE_STATE": f"{tmp_path}/longer"}
    )
    assert await kill_marked(f"INGLE_STATE={tmp_path}") == 0
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
