"""A server that is started where the disk of its state has not a free byte."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import server_directory
from small_disk import fill, small_disk

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")


def test_it_starts_on_demand_deletes_prunes_and_stops() -> None:
    with server_directory() as root, small_disk(root / "state", "128m") as state:

        def ingle(*arguments: str) -> str:
            done = _ingle(root, *arguments)
            assert done.returncode == 0, done.stderr
            return done.stdout

        ingle("image", "register", "--name", "mine", "--rootfs", str(_tree(root)))
        ingle("server", "stop")
        fill(state)
        ingle("image", "delete", "mine")
        fill(state)
        ingle("image", "prune", "--force")
        ingle("vm", "prune", "--force")
        ingle("server", "stop")


def test_what_is_named_as_full_can_be_looked_at() -> None:
    """It is not the directory that the failed call had made for itself."""
    with server_directory() as root, small_disk(root / "state", "32m") as state:
        failed = _ingle(root, "image", "register", "--name", "mine", "--rootfs", str(_tree(root)))
        assert failed.returncode == 1
        assert f"no space left on the file system at {state} but" in failed.stderr
        assert f"remedy: df -h {state}\n" in failed.stderr
        assert _ingle(root, "server", "stop").returncode == 0


def test_a_server_that_has_no_space_for_a_word_is_not_a_riddle() -> None:
    with server_directory() as root, small_disk(root / "state", "1m") as state:
        fill(state)
        failed = _ingle(root, "vm", "list")
        assert failed.returncode == 1
        assert f"there is no space in {state}/ingle to say why" in failed.stderr
        assert f"remedy: df -h {state}/ingle\n" in failed.stderr


def _tree(root: Path) -> Path:
    tree = root / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "sh").write_bytes(bytes(2**20))
    return tree


def _ingle(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = {key: value for key, value in os.environ.items() if not key.startswith("INGLE_")}
    env |= {
        "INGLE_MODE": "user",
        "XDG_STATE_HOME": str(root / "state"),
        "XDG_CACHE_HOME": str(root / "cache"),
        "XDG_CONFIG_HOME": str(root / "config"),
        "XDG_RUNTIME_DIR": str(root),
    }
    argv = [sys.executable, "-m", "ingle.cli", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=90)
