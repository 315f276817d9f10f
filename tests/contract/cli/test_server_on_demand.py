"""The per-user server starts when it is needed, once, and failures to start say why."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from contract.cli.conftest import Finished, Ingle


@pytest.fixture
async def own(isolated: Ingle) -> AsyncIterator[Ingle]:
    """The command line and the real server, in directories of their own."""
    home = isolated.environment["HOME"]
    ingle = isolated.with_variables(XDG_CACHE_HOME=f"{home}/cache", XDG_CONFIG_HOME=f"{home}/config")
    yield ingle
    await ingle("server", "stop")


def with_server_that(isolated: Ingle, tmp_path: Path, does: str) -> Ingle:
    """Put a server of one line in front of the real one."""
    package = tmp_path / "path" / "ingle" / "api_server"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(does)
    return isolated.with_variables(PYTHONPATH=str(tmp_path / "path"))


def runs(pid: int) -> bool:
    """What has ended runs no more, though the first process may not have waited for it yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def status(ingle: Ingle) -> Finished:
    return await ingle("server", "status", "--json")


async def test_the_first_command_starts_it_and_the_second_finds_it(own: Ingle) -> None:
    assert (await status(own)).code == 1
    assert (await own("vm", "list", "--json")).out == b"[]\n"
    pid = json.loads((await status(own)).out)["pid"]
    assert (await own("vm", "list")).code == 0
    assert json.loads((await status(own)).out)["pid"] == pid
    assert os.getsid(pid) == pid, "it lives in a session of its own"


async def test_commands_at_the_same_moment_start_one(own: Ingle) -> None:
    answers = await asyncio.gather(*(own("vm", "list", "--json") for _ in range(4)))
    assert {(answer.code, answer.out) for answer in answers} == {(0, b"[]\n")}, answers


FIRST_ALONE = """
import os, sys, time
try:
    os.mkdir(os.environ["HOME"] + "/first")
except FileExistsError:
    os.mkdir(os.environ["HOME"] + f"/late-{os.getpid()}")
    time.sleep(600)
while len(os.listdir(os.environ["HOME"])) < int(os.environ["SERVERS"]):
    time.sleep(0.01)
del os.environ["PYTHONPATH"]
os.execv(sys.executable, [sys.executable, "-m", "ingle.api_server", "serve"])
"""
"""Once all have come that are to, the first one serves; the others are still on their way."""


async def test_of_servers_that_start_at_the_same_moment_the_late_ones_are_not_left(own: Ingle, tmp_path: Path) -> None:
    home = Path(own.environment["HOME"])
    expected = len(list(home.iterdir())) + 3
    ingle = with_server_that(own, tmp_path, FIRST_ALONE).with_variables(SERVERS=str(expected))
    answers = await asyncio.gather(*(ingle("vm", "list", "--json") for _ in range(3)))
    assert {(answer.code, answer.out) for answer in answers} == {(0, b"[]\n")}, answers
    late = [int(path.name.partition("-")[2]) for path in home.glob("late-*")]
    assert len(late) == 2
    async with asyncio.timeout(60):
        while any(map(runs, late)):
            await asyncio.sleep(0.01)


async def test_a_command_that_comes_while_it_stops_gets_the_next_one(own: Ingle) -> None:
    stopping = json.loads((await own("server", "start", "--json")).out)["pid"]
    os.kill(stopping, signal.SIGTERM)
    async with asyncio.timeout(20):
        while (Path(own.environment["XDG_RUNTIME_DIR"]) / "ingle" / "api.sock").exists():
            await asyncio.sleep(0.01)
    assert (await own("vm", "list", "--json")).out == b"[]\n"
    assert json.loads((await status(own)).out)["pid"] != stopping


async def test_stop_waits_until_it_is_gone_and_is_fine_twice(own: Ingle) -> None:
    started = json.loads((await own("server", "start", "--json")).out)
    stopped = await own("server", "stop")
    assert stopped.text == f"stopped (pid {started['pid']})\n"
    assert not runs(started["pid"])
    again = await own("server", "stop")
    assert (again.code, again.text.split()[:2]) == (0, ["not", "running"])


async def test_its_log_is_kept_and_shown(own: Ingle) -> None:
    assert "ingle server start" in (await own("server", "logs")).err
    await own("server", "start")
    assert (await own("server", "logs", "--tail", "3")).out.strip()


async def test_status_completion_and_version_start_nothing(isolated: Ingle) -> None:
    await status(isolated)
    await isolated("version")
    await isolated.with_variables(_INGLE_COMPLETE="complete_bash", COMP_WORDS="ingle\nvm\nshow\n", COMP_CWORD="3")()
    assert list(Path(isolated.environment["XDG_STATE_HOME"]).iterdir()) == []


async def test_one_that_fails_to_start_has_its_last_words_shown(isolated: Ingle, tmp_path: Path) -> None:
    ingle = with_server_that(isolated, tmp_path, "raise SystemExit('the disk is on fire')")
    listed = await ingle("vm", "list")
    assert listed.code == 1
    assert "exit code 1" in listed.err
    assert "the disk is on fire" in listed.err
    assert "server.log" in listed.err


async def test_a_log_that_is_no_file_is_refused_and_nothing_waits_for_it(isolated: Ingle, tmp_path: Path) -> None:
    log = Path(isolated.environment["XDG_STATE_HOME"]) / "ingle" / "server.log"
    log.parent.mkdir(mode=0o700)
    (tmp_path / "elsewhere").touch()
    puts: list[Callable[[Path], None]] = [os.mkfifo, os.mkdir, lambda path: path.symlink_to(tmp_path / "elsewhere")]
    for put in puts:
        put(log)
        for command in (("vm", "list"), ("server", "start"), ("server", "logs"), ("server", "logs", "-f")):
            refused = await isolated(*command)
            assert refused.code == 1
            assert f"{log} is no regular file" in refused.err
            assert f"remedy: remove {log}" in refused.err
        if put is os.mkdir:
            log.rmdir()
        else:
            log.unlink()
    assert (tmp_path / "elsewhere").read_bytes() == b""


async def test_a_broken_configuration_is_told_with_what_to_do_about_it(isolated: Ingle, tmp_path: Path) -> None:
    ingle = isolated.with_variables(XDG_CONFIG_HOME=str(tmp_path))
    (tmp_path / "ingle").mkdir()
    (tmp_path / "ingle" / "config.toml").write_text("vcpus = [")
    for command in ("doctor", "ps"):
        refused = await ingle(command)
        assert refused.code == 1
        assert f"remedy: correct {tmp_path}/ingle/config.toml, or move it away\n" in refused.err
        assert "try:" not in refused.err


@pytest.mark.parametrize("place", ["XDG_STATE_HOME", "XDG_RUNTIME_DIR"])
async def test_a_directory_where_the_socket_belongs_is_named_with_what_to_type(isolated: Ingle, place: str) -> None:
    path = Path(isolated.environment[place]) / "ingle" / "api.sock"
    path.mkdir(parents=True)
    path.parent.chmod(0o700)
    home = isolated.environment["HOME"]
    refused = await isolated.with_variables(XDG_CACHE_HOME=f"{home}/cache", XDG_CONFIG_HOME=f"{home}/c")("vm", "list")
    assert refused.code == 1
    assert f"{path} is a directory, where the server's socket belongs" in refused.err
    assert f"mv {path} {path}.old" in refused.err


async def test_a_state_directory_that_cannot_be_made_is_named_with_what_to_set(isolated: Ingle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failed = await isolated.with_variables(XDG_STATE_HOME=str(tmp_path / "file"))("vm", "list")
    assert failed.code == 1
    assert f"can't write {tmp_path}/file" in failed.err
    assert "remedy: set XDG_STATE_HOME" in failed.err


async def test_one_whose_packages_are_missing_names_the_extra_to_install(isolated: Ingle, tmp_path: Path) -> None:
    ingle = with_server_that(isolated, tmp_path, "import no_such_package")
    assert "pip install 'ingle[server]'" in (await ingle("vm", "list")).err
    assert "pip install 'ingle[server]'" in (await ingle("doctor")).err


async def test_a_named_server_that_is_not_there_is_never_replaced(isolated: Ingle, tmp_path: Path) -> None:
    ingle = isolated.with_variables(INGLE_SOCKET=str(tmp_path / "elsewhere.sock"))
    for arguments, code in ((("vm", "list"), 1), (("vm", "exec", "web", "--", "true"), 125)):
        refused = await ingle(*arguments)
        assert refused.code == code
        assert "elsewhere.sock" in refused.err
        assert "unset INGLE_SOCKET" in refused.err
    assert list(Path(isolated.environment["XDG_STATE_HOME"]).iterdir()) == []


async def test_a_socket_path_that_cannot_be_is_refused_by_name_and_length(isolated: Ingle) -> None:
    ingle = isolated.with_variables(INGLE_SOCKET="/tmp/" + "x" * 200)
    assert "at most 107" in (await ingle("vm", "list")).err


async def test_a_runtime_directory_that_is_a_link_is_not_trusted(isolated: Ingle, tmp_path: Path) -> None:
    (Path(isolated.environment["XDG_RUNTIME_DIR"]) / "ingle").symlink_to(tmp_path)
    refused = await isolated("vm", "list")
    assert refused.code == 1
    assert "not a directory of yours" in refused.err


STRANGER = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    listener.listen()
    print("listening", flush=True)
    print(listener.accept()[0].recv(100))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user as well")
@pytest.mark.parametrize("variable", ["INGLE_SOCKET", "XDG_STATE_HOME"])
async def test_where_others_may_make_files_another_user_who_was_first_hears_nothing(
    isolated: Ingle, tmp_path: Path, variable: str
) -> None:
    shared = tmp_path / "ingle"
    shared.mkdir()
    named = {"INGLE_SOCKET": str(shared / "api.sock"), "XDG_STATE_HOME": str(tmp_path)}
    stranger = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STRANGER, shared / "api.sock"), stdout=asyncio.subprocess.PIPE
    )
    assert stranger.stdout is not None
    await stranger.stdout.readline()
    if variable == "INGLE_SOCKET":
        shared.chmod(0o1777)
    else:
        os.chown(shared, 65534, 65534)
    refused = await isolated.with_variables(**{variable: named[variable]})("vm", "list")
    if variable == "INGLE_SOCKET":
        assert (await stranger.communicate())[0] == b"b''\n"
    else:
        stranger.kill()
        assert (await stranger.communicate())[0] == b"", "nobody was there"
        assert os.listdir(shared) == ["api.sock"], "and nothing was put there"
    assert refused.code == 1
    assert "trusted" in refused.err
    assert f"remedy: {'start that server' if variable == 'INGLE_SOCKET' else 'set XDG_STATE_HOME'}" in refused.err


async def test_a_server_that_goes_away_is_an_error_not_a_success(isolated: Ingle, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.create_server(str(path), family=socket.AF_UNIX) as listener:
        process = await isolated.with_variables(INGLE_SOCKET=str(path)).start("vm", "exec", "web", "--", "true")
        connection, _ = await asyncio.to_thread(listener.accept)
        connection.close()
        async with asyncio.timeout(20):
            _, said = await process.communicate()
    assert process.returncode == 125
    assert b"ingle server status" in said


@pytest.mark.parametrize("command", [("vm", "list"), ("vm", "exec", "web", "true")], ids=["list", "exec"])
async def test_a_server_that_does_not_answer_is_what_a_command_says_it_waits_for(
    isolated: Ingle, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "api.sock"
    with socket.create_server(str(path), family=socket.AF_UNIX):
        process = await isolated.with_variables(INGLE_SOCKET=str(path)).start(*command)
        assert process.stderr is not None
        async with asyncio.timeout(20):
            said = await process.stderr.readline()
        process.kill()
        await process.communicate()
    assert said.decode() == f"Waiting for the server (pid {os.getpid()}) to answer\n"


@pytest.mark.parametrize(
    ("command", "code"), [(("vm", "list"), 1), (("vm", "exec", "web", "true"), 125)], ids=["list", "exec"]
)
async def test_what_breaks_the_protocol_is_an_error(
    isolated: Ingle, tmp_path: Path, command: tuple[str, ...], code: int
) -> None:
    path = tmp_path / "api.sock"
    with socket.create_server(str(path), family=socket.AF_UNIX) as listener:
        process = await isolated.with_variables(INGLE_SOCKET=str(path)).start(*command)
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            connection.sendall(bytes([0, 0, 0, 9, 0, 0, 0, 0, 1]))  # the end of headers that never began
            async with asyncio.timeout(20):
                _, said = await process.communicate()
    assert process.returncode == code
    assert said.startswith(b"ingle: the connection to the server broke")


async def test_doctor_shows_what_the_server_found_and_ends_as_it_does(isolated: Ingle, tmp_path: Path) -> None:
    report = {
        "checks": [{"name": "qemu", "status": "fail", "detail": "not installed", "remedy": "apt install qemu"}],
        "settings": [{"name": "vcpus", "value": "2", "origin": "$INGLE_VCPUS"}],
    }
    ingle = with_server_that(isolated, tmp_path, f"import sys; print('''{json.dumps(report)}'''); sys.exit(1)")
    shown = await ingle("doctor")
    assert shown.code == 1
    assert shown.text.splitlines() == [
        "fail  qemu: not installed",
        "      remedy: apt install qemu",
        "",
        "SETTING  VALUE  FROM",
        "vcpus    2      $INGLE_VCPUS",
    ]
    assert json.loads((await ingle("doctor", "--json")).out) == report
