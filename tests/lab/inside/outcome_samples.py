"""One test for each way in which a test in the lab can end, for tests/lab/test_outcomes.py; only run by that."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def broken() -> None:
    raise RuntimeError("the fixture is broken")


@pytest.mark.parametrize("text", ["a b", "c::d"])
def test_passes(text: str) -> None:
    assert Path("/proc/1/comm").read_text() == "systemd\n"


def test_fails() -> None:
    sys.stdout.write("said before it failed\n")
    number = 41
    assert number == 42


def test_is_skipped() -> None:
    pytest.skip("for a reason")


@pytest.mark.xfail(strict=True)
def test_fails_as_expected() -> None:
    raise AssertionError


def test_has_no_fixture(broken: None) -> None:
    """Never runs."""


def test_takes_the_lab_down() -> None:
    Path("/proc/sys/kernel/printk").write_text("7")
    Path("/proc/sysrq-trigger").write_text("c")


def test_comes_too_late() -> None:
    """Never runs."""
