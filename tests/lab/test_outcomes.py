"""How tests that run in the lab look from outside, whatever becomes of the lab."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.disk import REPOSITORY
from slow import slow

# Four labs, one after the other: minutes, and of use to whoever changes the lab.
pytestmark = slow

SAMPLES = "tests/lab/inside/outcome_samples.py"
MARK = f"INGLE_LAB_TEST={secrets.token_hex(8)}"


def pytest_run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    env = {**os.environ, **dict([MARK.split("=")])}
    return subprocess.run(command, cwd=REPOSITORY, env=env, check=False, capture_output=True, text=True)


def ours() -> Iterator[Path]:
    """The processes that runs of these tests have begun, in /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if MARK.encode() in (entry / "environ").read_bytes():
                yield entry


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ElementTree.Element]:
    """The samples' outcomes, as JUnit's format has them, by the tests' names."""
    path = tmp_path_factory.mktemp("outcomes") / "junit.xml"
    places = (f"--junitxml={path}", f"--lab-logs={path.parent}")
    ended = pytest_run(SAMPLES, *places, "-o", "junit_logging=system-out")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    found = {case.get("name", ""): case for case in ElementTree.parse(path).iter("testcase")}
    assert len(found) == 8, ended.stdout
    return found


def parts(case: ElementTree.Element) -> dict[str, str]:
    return {part.tag: f"{part.get('message')}\n{part.text}" for part in case}


@pytest.mark.parametrize("name", ["test_passes[a b]", "test_passes[c::d]"])
def test_one_that_passes_has_passed(cases: dict[str, ElementTree.Element], name: str) -> None:
    assert parts(cases[name]).keys() == {"system-out"}


def test_one_that_fails_shows_why_and_what_it_said(cases: dict[str, ElementTree.Element]) -> None:
    failure = parts(cases["test_fails"])
    assert "assert 41 == 42" in failure["failure"]
    assert "said before it failed" in failure["system-out"]


def test_skipped_and_expected_to_fail_stay_what_they_are(cases: dict[str, ElementTree.Element]) -> None:
    assert "for a reason" in parts(cases["test_is_skipped"])["skipped"]
    assert parts(cases["test_fails_as_expected"]).keys() == {"skipped", "system-out"}


def test_a_broken_fixture_is_an_error(cases: dict[str, ElementTree.Element]) -> None:
    assert "the fixture is broken" in parts(cases["test_has_no_fixture"])["error"]


def test_a_lab_that_dies_shows_its_console_and_fails_the_rest(cases: dict[str, ElementTree.Element]) -> None:
    death = parts(cases["test_takes_the_lab_down"])["failure"]
    assert "the lab died" in death
    assert "Kernel panic" in death
    assert "not run: the lab died" in parts(cases["test_comes_too_late"])["failure"]


def test_a_lab_that_dies_for_no_reason_of_a_test_is_replaced(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", SAMPLES, "-k", "passes"]
    env = {**os.environ, **dict([MARK.split("=")])}
    with subprocess.Popen(
        [*command, f"--lab-logs={tmp_path}"], cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        next(line for line in run.stdout if "ready after" in line)
        (lab,) = [entry for entry in ours() if b"qemu-system" in (entry / "cmdline").read_bytes()]
        os.kill(int(lab.name), signal.SIGKILL)
        said = run.stdout.read()
    assert "another one goes on from tests/lab/inside/outcome_samples.py::test_passes" in said
    assert "2 passed" in said


def test_no_lab_outlives_its_run(cases: dict[str, ElementTree.Element]) -> None:
    assert [(entry / "cmdline").read_bytes() for entry in ours()] == []


def test_collecting_starts_no_lab() -> None:
    ended = pytest_run(SAMPLES, "--collect-only", "-q", "-k", "passes")
    assert "2/8 tests collected" in ended.stdout
    assert "lab:" not in ended.stdout
