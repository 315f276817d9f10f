"""API server and network helper of a system install in namespaces: killed together at any instant, given up at any
stage, and with guests that look for each other."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import system_server

ALONE = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
SLOW = pytest.mark.skipif("not config.getoption('--slow')", reason="--slow")
MOST_SECONDS = 1500
CONTRACT = Path(__file__).parents[1] / "engine_contract"

RecordProperty = Callable[[str, object], None]


def run_alone(module: str, *argv: str) -> str:
    """Run a module in namespaces of its own; what it says on stdout."""
    if os.getuid() != 0:
        pytest.skip("only root can make namespaces, taps and a helper")
    ended = subprocess.run(
        [*ALONE, sys.executable, "-m", module, *argv],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), system_server.ALONE: "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=MOST_SECONDS,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    ("seed", "kills", "creates"), [(1, 5, 13), *(pytest.param(seed, 10, 20, marks=SLOW) for seed in range(2, 7))]
)
def test_exactly_what_the_store_says_is_there(
    prepared: Path, seed: int, kills: int, creates: int, record_property: RecordProperty
) -> None:
    said = run_alone("integration.system_in_namespaces", str(prepared), str(seed), str(kills), str(creates))
    for name, counts in json.loads(said).items():
        record_property(name, counts)


def test_guests_of_a_network_reach_each_other_by_address_and_name_and_no_other_network(prepared: Path) -> None:
    run_alone("integration.two_guests", str(prepared))


def test_a_member_who_wants_all_of_the_server_leaves_the_others_theirs(
    prepared: Path, record_property: RecordProperty
) -> None:
    for attack, took in json.loads(run_alone("integration.hostile_members", str(prepared))).items():
        record_property(attack, took)


@SLOW
def test_what_a_guest_may_rely_on_holds_in_a_network_that_vms_share(pytestconfig: pytest.Config) -> None:
    run_alone("pytest", "-q", "-p", "no:cacheprovider", "--prepared", pytestconfig.getoption("prepared"), str(CONTRACT))
