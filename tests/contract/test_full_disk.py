"""A server that is started where the disk of its state has not a free byte."""

import os
import subprocess
import sys

import pytest

from harness import server_directory
from small_disk import fill, small_disk


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_it_starts_on_demand_deletes_prunes_and_stops() -> None:
    with server_directory() as root, small_disk(root / "state", "128m") as state:
        env = {key: value for key, value in os.environ.items() if not key.startswith("INGLE_")}
        env |= {
            "INGLE_MODE": "user",
            "XDG_STATE_HOME": str(state),
            "XDG_CACHE_HOME": str(root / "cache"),
            "XDG_CONFIG_HOME": str(root / "config"),
            "XDG_RUNTIME_DIR": str(root),
        }

        def ingle(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "ingle.cli", *arguments],
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=90,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        tree = root / "tree"
        (tree / "bin").mkdir(parents=True)
        (tree / "bin" / "sh").write_bytes(bytes(2**20))
        ingle("image", "register", "--name", "mine", "--rootfs", str(tree))
        ingle("server", "stop")
        fill(state)
        ingle("image", "delete", "mine")
        fill(state)
        ingle("image", "prune")
        ingle("vm", "prune", "--force")
        ingle("server", "stop")
