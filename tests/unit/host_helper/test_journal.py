"""The journal says what was made, whenever its writer was killed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingle.host_helper import journal as journal_module
from ingle.host_helper.journal import BadJournal, Journal
from ingle.host_helper.state import Device, Limit, Nat, Network, Protocol, Published, Resource, State, Tap

EVERYTHING: list[Resource] = [
    Network(0),
    Network(1),
    Network(1, 20053),
    Tap(2, "a" * 12),
    Tap(258, "b" * 12),
    Nat(2),
    Limit(2, 1 << 20),
    Limit(2, 2 << 20),
    Published(Protocol.TCP, 8080, 2, 80),
    Published(Protocol.UDP, 8080, 2, 80),
    Published(Protocol.TCP, 8081, 2, 80, "2001:db8::1"),
    Device("a" * 12, "f" * 64, 4096),
    Device("a" * 12, "f" * 64, 8192),
]

states = st.lists(st.sampled_from(EVERYTHING)).map(State)


@settings(max_examples=60, deadline=None)
@given(st.lists(states, min_size=1, max_size=6), st.integers(0, 400))
def test_a_torn_end_stands_for_the_state_before(
    tmp_path_factory: pytest.TempPathFactory, steps: list[State], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path)
    ends = {path.stat().st_size: State()}
    for state in steps:
        journal.change(state)
        ends[path.stat().st_size] = state
    journal.close()
    data = path.read_bytes()
    left = max(min(ends), len(data) - cut)
    path.write_bytes(data[:left])
    assert Journal(path).state == ends[max(end for end in ends if end <= left)]


def test_what_is_the_same_is_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.change(State(EVERYTHING))
    size = (tmp_path / "journal").stat().st_size
    journal.change(State(reversed(list(State(EVERYTHING)))))
    assert (tmp_path / "journal").stat().st_size == size


def test_it_is_written_anew_before_it_grows_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_MOST_LINES", 10)
    journal = Journal(tmp_path / "journal")
    for _ in range(100):
        journal.change(State(EVERYTHING))
        journal.change(State(EVERYTHING[:3]))
    assert len((tmp_path / "journal").read_bytes().splitlines()) <= 11
    assert Journal(tmp_path / "journal").state == State(EVERYTHING[:3])
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_what_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    """Taps and journal outlive the helper, and so an upgrade."""
    journal = tmp_path / "journal"
    journal.write_text('{"add":[["network",1],["port","tcp",8080,2,80]],"remove":[]}\n')
    assert Journal(journal).state == State([Network(1), Published(Protocol.TCP, 8080, 2, 80)])


def test_it_is_roots_alone(tmp_path: Path) -> None:
    Journal(tmp_path / "journal")
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"add":[["rule","drop"]],"remove":[]}\n',
        b'{"add":[["tap","2"]],"remove":[]}\n',
    ],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "journal").write_bytes(line)
    with pytest.raises(BadJournal, match="move it away"):
        Journal(tmp_path / "journal")
