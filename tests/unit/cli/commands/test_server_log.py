"""`ingle server logs`, while the server puts a new file in the place of one that has become large."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def shown(state: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    environment.pop("INGLE_MODE", None)
    command = [sys.executable, "-m", "ingle.cli", "server", "logs", *options]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_who_follows_sees_every_line_once(tmp_path: Path) -> None:
    log = tmp_path / "ingle" / "server.log"
    log.parent.mkdir()
    log.write_text("first\n")
    with shown(tmp_path, "-f") as process, log.open("a") as server:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        log.rename(log.with_name("server.log.1"))
        server.write("before the new file\n")
        server.flush()
        log.write_text("after it\n")
        assert process.stdout.readline() == b"before the new file\n"
        assert process.stdout.readline() == b"after it\n"


def test_what_is_asked_for_and_not_in_a_new_file_is_taken_from_the_one_before(tmp_path: Path) -> None:
    log = tmp_path / "ingle" / "server.log"
    log.parent.mkdir()
    log.write_text("3\n4\n")
    log.with_name("server.log.1").write_text("0\n1\n2\n")
    with shown(tmp_path, "--tail", "4") as process:
        assert process.communicate()[0] == b"1\n2\n3\n4\n"


def test_who_follows_a_silent_log_leaves_with_its_reader(tmp_path: Path) -> None:
    log = tmp_path / "ingle" / "server.log"
    log.parent.mkdir()
    log.write_text("all there is\n")
    with shown(tmp_path, "-f") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"all there is\n"
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGPIPE
