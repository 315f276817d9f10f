"""The smoke run against a system install."""

import subprocess
from pathlib import Path

from lab.inside.commands import User
from slow import slow

SMOKE = Path(__file__).parents[3] / "scripts/smoke.sh"
MOST_SECONDS = 400


@slow
def test_the_smoke_run_of_a_system_install(member: User) -> None:
    ended = subprocess.run([str(SMOKE), "--system"], capture_output=True, text=True, check=False, timeout=MOST_SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdicts = [line.split()[0] for line in ended.stdout.splitlines()]
    assert verdicts == ["ok"] * 5, ended.stdout
