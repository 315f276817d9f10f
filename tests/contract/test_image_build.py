"""What can't be built is told before a VM is made for it. What can is in integration/test_image_build.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import Server


def build(server: Server, directory: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "ingle.cli", "image", "build", *arguments],
        cwd=directory,
        env={"HOME": "/nowhere", "PATH": os.environ["PATH"], "INGLE_SOCKET": str(server.socket), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in (1, 2), ended
    return ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-t", "app:v1", "nowhere"], "nowhere: no such directory"),
        (["-t", "app:v1", "."], "Dockerfile: no such file"),
        (["-t", "app:v1", "-f", "absent", "full"], "absent: no such file"),
        (["-t", "app:v1", "--build-arg", "=x", "full"], "NAME=VALUE"),
        (["-t", "no name", "full"], "no name"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(
    server: Server, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "Dockerfile").write_text("FROM scratch\n")
    before = {vm.id for vm in server.list()}
    assert said in build(server, tmp_path, *arguments)
    assert {vm.id for vm in server.list()} == before
