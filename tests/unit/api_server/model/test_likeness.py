"""What is meant by a name that there is not."""

import difflib
from collections.abc import Iterator

import pytest

from ingle.api_server.model import likeness
from ingle.api_server.model.likeness import nearest


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("wbe", "web"), ("debain", "debian"), ("shopp", "shop"), ("zzzz", ""), ("", ""), ("x" * 65, "")],
)
def test_a_slip_of_the_finger_is_known(typed: str, meant: str) -> None:
    assert nearest(typed, ["db", "web", "shop", "debian", "x" * 65]) == meant


def test_of_very_many_names_those_that_begin_alike_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = difflib.get_close_matches

    def counted(word: str, names: list[str], n: int) -> list[str]:
        compared.append(len(names))
        return compare(word, names, n)

    def endless() -> Iterator[str]:
        while True:
            looked_at.append(1)
            yield "job-1234"

    looked_at: list[int] = []
    monkeypatch.setattr(likeness, "get_close_matches", counted)
    assert nearest("weeb", [*(f"b{number}" for number in range(5000)), "webb"]) == "webb"
    assert nearest("wob", endless()) == ""
    assert max(compared) <= 200
    assert len(looked_at) <= 10_000
