"""The runtime directory is a login manager's: it goes while the server runs, and another session has another one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import Server, running_server, server_directory
from ingle.v1 import system_pb2


def ingle(server: Server, *arguments: str, **variables: str) -> str:
    env = {**server.env, "INGLE_MODE": "user", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        subprocess.run(["sleep", "0.1"], check=True)
    raise AssertionError(f"no {path}")


def test_a_server_whose_runtime_directory_was_taken_away_listens_again_under_its_lock() -> None:
    with server_directory() as root, running_server(root) as server:
        shutil.rmtree(root / "run")
        assert f"pid {server.process.pid}" in ingle(server, "server", "status")  # type: ignore[union-attr]
        wait_for(server.socket)
        server.system.Ping(system_pb2.PingRequest(), wait_for_ready=True)
        other = {**server.env, "XDG_STATE_HOME": str(root / "other"), "INGLE_SOCKET": str(server.socket)}
        second = subprocess.run(server.argv, env=other, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 75
        assert "stopped" in ingle(server, "server", "stop")
        assert server.process is not None
        assert server.process.wait(60) == 0


def test_a_server_is_found_from_a_session_with_another_runtime_directory(tmp_path: Path) -> None:
    with server_directory() as root, running_server(root) as server:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        said = ingle(server, "server", "status", XDG_RUNTIME_DIR=str(elsewhere))
        assert f"pid {server.process.pid}" in said  # type: ignore[union-attr]
        assert str(server.socket) in said
        ingle(server, "vm", "list", XDG_RUNTIME_DIR=str(elsewhere))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_a_runtime_directory_that_is_unmounted_and_mounted_anew_is_used_again() -> None:
    with server_directory() as root:
        run = root / "run"
        run.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", run], check=True)
        try:
            with running_server(root) as server:
                subprocess.run(["umount", "--lazy", run], check=True)
                subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", run], check=True)
                wait_for(server.socket)
                server.system.Ping(system_pb2.PingRequest(), wait_for_ready=True)
        finally:
            subprocess.run(["umount", "--lazy", run], check=True)


@pytest.mark.parametrize("what", [".", "lock"])
def test_a_server_whose_state_was_taken_away_makes_room_for_one_that_has_some(what: str) -> None:
    with server_directory() as root, running_server(root) as server:
        assert server.process is not None
        taken = server.state / what
        taken.resolve().rename(root / "taken")
        assert server.process.wait(60) == 0
        assert ingle(server, "vm", "list", "--json") == "[]\n"
        pid = (server.state / "lock").read_text().splitlines()[0]
        assert pid != str(server.process.pid)
        assert f"pid {pid}" in ingle(server, "server", "stop")
