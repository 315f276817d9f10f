"""API server and network helper of a system install, killed together at any instant and given up at any stage."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ALONE = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
SLOW = pytest.mark.skipif("not config.getoption('--slow')", reason="--slow")
MOST_SECONDS = 1500

RecordProperty = Callable[[str, object], None]


@pytest.mark.parametrize(
    ("seed", "kills", "creates"), [(1, 5, 13), *(pytest.param(seed, 10, 20, marks=SLOW) for seed in range(2, 7))]
)
def test_exactly_what_the_store_says_is_there(
    prepared: Path, seed: int, kills: int, creates: int, record_property: RecordProperty
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make namespaces, taps and a helper")
    script = [sys.executable, "-m", "integration.system_in_namespaces", str(prepared), str(seed), str(kills)]
    ended = subprocess.run(
        [*ALONE, *script, str(creates)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=MOST_SECONDS,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for name, counts in json.loads(ended.stdout).items():
        record_property(name, counts)
