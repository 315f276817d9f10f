"""Root's powers over files: a machine that refuses them says so in time."""

from pathlib import Path

import pytest

from ingle.api_server.host import rootlike
from ingle.api_server.host.tool import Tools

# What unshare of util-linux 2.38 does where user namespaces are refused: it fails, and its child waits on.
REFUSED = """#!/bin/sh
sleep 600 &
echo $! > "$PIDFILE"
echo 'unshare: unshare failed: Operation not permitted' >&2
exit 1
"""


async def test_an_unshare_that_leaves_a_child_with_its_stderr_is_a_refusal_and_the_child_goes(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "bin" / "unshare"
    stand_in.parent.mkdir()
    stand_in.write_text(REFUSED)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent), prepend=":")
    monkeypatch.setenv("PIDFILE", str(tmp_path / "pid"))
    monkeypatch.setattr(rootlike, "_TRIAL_SECONDS", 0.5)
    assert await rootlike.namespace(tools) is None
    left = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    assert not left.exists() or left.read_text().rpartition(")")[2].split()[0] in "ZX"
