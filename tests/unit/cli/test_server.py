"""When a server that was told to stop is gone."""

import subprocess

from ingle.cli.commands.server import _lives


def test_a_process_that_ended_does_not_live_though_nobody_waited_for_it() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert _lives(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.read()  # to its end
        while _lives(process.pid):
            pass
        assert process.returncode is None  # it is a zombie
    assert not _lives(process.pid)
