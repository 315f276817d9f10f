"""What takes long is told."""

import signal
from collections.abc import Iterator

import pytest

from ingle.cli import waiting

# The limit to a test's time would have the same alarm clock.
pytestmark = pytest.mark.timeout(method="thread")


@pytest.fixture(autouse=True)
def quiet_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(waiting, "_WAITING", waiting._Waiting())
    former = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


def test_what_is_under_way_is_told_when_its_time_has_come(capfd: pytest.CaptureFixture[str]) -> None:
    waiting.begins("Booting")
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    signal.raise_signal(signal.SIGALRM)
    assert capfd.readouterr() == ("", "Booting\n")


def test_what_has_ended_is_not() -> None:
    waiting.begins("Booting")
    waiting.ended()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_nor_is_anything_to_a_program() -> None:
    waiting.keep_silent()
    waiting.begins("Booting")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
