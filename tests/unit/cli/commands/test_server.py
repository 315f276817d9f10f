"""When a server that was told to stop is gone, and when one that has the state does not answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.cli import paths, server_process
from ingle.cli.commands.server import _lives
from ingle.cli.errors import CliError


def test_a_process_that_ended_does_not_live_though_nobody_waited_for_it() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        assert _lives(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie, and still one
        assert not _lives(process.pid)
    assert not _lives(process.pid)


def test_a_server_that_has_the_state_and_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(server_process, "_START_LIMIT_SECONDS", 2.0)
    monkeypatch.setattr(server_process, "SERVER_COMMAND", (sys.executable, "-c", "raise SystemExit(75)"))
    (tmp_path / "ingle").mkdir()
    (tmp_path / "ingle" / "lock").write_text("4242\n/elsewhere/api.sock\n")
    with pytest.raises(CliError) as raised:
        server_process.start(paths.Address(tmp_path / "api.sock", own=True))
    assert "pid 4242" in raised.value.failures[0].message
    assert raised.value.failures[0].remedy == "kill 4242"
