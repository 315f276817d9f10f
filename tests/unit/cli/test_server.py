"""When a server that was told to stop is gone."""

import os
import subprocess

from ingle.cli.commands.server import _lives


def test_a_process_that_ended_does_not_live_though_nobody_waited_for_it() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        assert _lives(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie, and still one
        assert not _lives(process.pid)
    assert not _lives(process.pid)
