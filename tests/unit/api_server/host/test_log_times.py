"""Lines are told with the times at which they were seen, whatever a guest writes and becomes of what was noted."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingle.api_server.adapters.vm_files import LocalVmFiles
from ingle.api_server.adapters.vmm import logs as vmm_logs
from ingle.api_server.host import bounded_log, log_times
from ingle.api_server.model.errors import HostProblem
from ingle.api_server.ports.vm_files import LogWish

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
MIB = 2**20


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def seen(log: Path, data: bytes, seconds: float) -> None:
    """A guest says it that many seconds after noon, and somebody looks."""
    said(log, data, seconds)
    log_times.note(log)


def said(log: Path, data: bytes, seconds: float) -> None:
    with log.open("ab") as guest:
        guest.write(data)
    os.utime(log, (at(seconds).timestamp(),) * 2)


async def lines(log: Path, **wish: object) -> list[tuple[bytes, float]]:
    """What is told, line by line, with seconds after noon."""
    found: list[tuple[bytes, float]] = []
    async for piece in LocalVmFiles(log.parent, log.parent).stream(log, LogWish(**wish)):  # type: ignore[arg-type]
        for line in piece.data.splitlines(keepends=True):
            seconds = (piece.time - NOON).total_seconds()
            if found and not found[-1][0].endswith(b"\n"):
                assert seconds == found[-1][1]
                found[-1] = found[-1][0] + line, seconds
            else:
                found.append((line, seconds))
    return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "console.log"


@pytest.fixture
def spoken(log: Path) -> Path:
    """Four lines, the third of which was seen half; nobody has looked since the last."""
    seen(log, b"one\ntwo\n", 1)
    seen(log, b"thr", 2)
    seen(log, b"ee\n", 3)
    said(log, b"four\n", 4)
    return log


async def test_a_line_has_the_time_at_which_its_beginning_was_seen(spoken: Path) -> None:
    assert await lines(spoken) == [(b"one\n", 1), (b"two\n", 1), (b"three\n", 2), (b"four\n", 4)]


@pytest.mark.parametrize(
    ("since", "until", "tail", "shown"),
    [
        (1, None, None, [b"one\n", b"two\n", b"three\n", b"four\n"]),
        (1.5, None, None, [b"three\n", b"four\n"]),
        (2.5, None, None, [b"four\n"]),
        (4, None, None, [b"four\n"]),
        (4.5, None, None, []),
        (None, 1, None, []),
        (None, 2, None, [b"one\n", b"two\n"]),
        (None, 3, None, [b"one\n", b"two\n", b"three\n"]),
        (None, 99, None, [b"one\n", b"two\n", b"three\n", b"four\n"]),
        (1.5, 3.5, None, [b"three\n"]),
        (3.5, 1.5, None, []),
        (None, 2.5, 2, [b"two\n", b"three\n"]),
        (None, 2, 1, [b"two\n"]),
        (1.5, None, 9, [b"three\n", b"four\n"]),
        (1, 3, 1, [b"three\n"]),
        (None, 1, 3, []),
        (None, None, 0, []),
    ],
)
async def test_whole_lines_of_a_time_are_told(
    spoken: Path, since: float | None, until: float | None, tail: int | None, shown: list[bytes]
) -> None:
    wish = {
        "since": None if since is None else at(since),
        "until": None if until is None else at(until),
        "tail_lines": tail,
    }
    assert [line for line, _ in await lines(spoken, **wish)] == shown


async def test_what_was_seen_at_once_is_told_at_once(log: Path) -> None:
    for seconds in (1, 2):
        seen(log, b"a line\n" * 1000, seconds)
    told = [piece async for piece in LocalVmFiles(log.parent, log.parent).stream(log, LogWish())]
    assert [(len(piece.data), piece.time) for piece in told] == [(7000, at(1)), (7000, at(2))]


async def test_the_next_server_goes_on_with_the_records_and_gives_what_it_missed_the_time_of_the_last_of_it(
    spoken: Path,
) -> None:
    said(spoken, b"five\n", 50)
    log_times.note(spoken, noted=0)  # which is what a new server knows
    log_times.note(spoken, noted=0)
    seen(spoken, b"six\n", 60)
    assert [time for _, time in await lines(spoken)] == [1, 1, 2, 50, 50, 60]


async def test_a_log_that_is_moved_takes_its_times_along(log: Path) -> None:
    other = log.with_name("vmm.log")
    other.write_bytes(b"")
    seen(log, b"one\n", 1)
    seen(log, b"two\n", 2)
    os.truncate(other, 64 * MIB)
    bounded_log.level([log, other])  # a hole in the middle of the text
    seen(log, b"three\n", 3)
    seen(log, b"four\n", 4)
    assert [time for _, time in await lines(log)] == [1, 2, 3, 4]
    assert vmm_logs.begun([log], 2**33)
    assert log.stat().st_size >= 2**33
    seen(log, b"five\n", 5)
    everything = [(b"one\n", 1), (b"two\n", 2), (b"three\n", 3), (b"four\n", 4), (b"five\n", 5)]
    assert await lines(log) == everything
    assert await lines(log, since=at(2.5)) == everything[2:]
    assert await lines(log, until=at(2.5), tail_lines=1) == everything[1:2]


async def test_what_no_server_saw_before_a_boot_is_not_of_the_boot(spoken: Path) -> None:
    for offset in (2**33, 2**33, 2**34):
        assert vmm_logs.begun([spoken], offset)
    assert [time for _, time in await lines(spoken)] == [1, 1, 2, 4]


async def test_records_are_bounded_and_the_latest_stay_exact(log: Path) -> None:
    count = 3 * log_times.MOST_RECORDS
    for number in range(count):
        seen(log, b"%d\n" % number, number)
        assert log_times.beside(log).stat().st_size <= log_times.MOST_RECORDS * 16
    told = [(int(line), time) for line, time in await lines(log)]
    assert [number for number, _ in told] == list(range(count))
    assert all(number <= time for number, time in told)
    assert [time for _, time in told] == sorted(time for _, time in told)
    exact = log_times.MOST_RECORDS // 2
    assert told[-exact:] == [(number, number) for number in range(count - exact, count)]


async def test_what_is_forgotten_of_a_log_takes_its_records_along(log: Path) -> None:
    log.touch()
    for number in range(log_times.MOST_RECORDS):
        os.truncate(log, (number + 1) * MIB)  # a guest that writes a MiB each time
        log_times.note(log)
    seen(log, b"last\n", 1)
    assert log_times.beside(log).stat().st_size == 16
    assert await lines(log, tail_lines=1) == [(b"last\n", 1)]


async def test_one_endless_line_is_told_and_passed_over_in_pieces(log: Path) -> None:
    for number in range(4):
        seen(log, b"x" * MIB, number)
    assert await lines(log) == [(b"x" * 4 * MIB, 0)]
    assert await lines(log, since=at(1.5)) == []
    assert await lines(log, until=at(2.5), tail_lines=1) == [(b"x" * 4 * MIB, 0)]
    seen(log, b"\nnext\n", 9)
    assert await lines(log, since=at(1.5)) == [(b"next\n", 9)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda index: os.truncate(index, 24),
        lambda index: os.truncate(index, 0),
        lambda index: index.unlink(),
        lambda index: index.write_bytes(b"\xff" * 1000),
        lambda index: index.write_bytes(b"\0" * 1000),
        lambda index: os.truncate(index, 2**40),
        lambda index: index.write_bytes(index.read_bytes() * 3),
    ],
)
async def test_spoilt_records_cost_times_and_no_lines(spoken: Path, spoil: Callable[[Path], None]) -> None:
    spoil(log_times.beside(spoken))
    text = [b"one\n", b"two\n", b"three\n", b"four\n"]
    assert [line for line, _ in await lines(spoken)] == text
    seen(spoken, b"five\n", 5)
    seen(spoken, b"six\n", 6)
    told = await lines(spoken)
    assert [line for line, _ in told] == [*text, b"five\n", b"six\n"]
    assert told[-1][1] == 6
    assert log_times.beside(spoken).stat().st_size <= log_times.MOST_RECORDS * 16


async def test_the_records_of_a_log_that_is_gone_are_not_those_of_the_next(spoken: Path) -> None:
    spoken.unlink()
    seen(spoken, b"new\n", 7)
    seen(spoken, b"and longer than the one before\n", 8)
    assert await lines(spoken) == [(b"new\n", 7), (b"and longer than the one before\n", 8)]


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
async def test_what_is_in_the_records_place_is_neither_followed_nor_waited_for_and_stops_no_boot(
    log: Path, put: Callable[[Path], None]
) -> None:
    log.write_bytes(b"one\n")
    put(log_times.beside(log))
    vmm_logs.note([log], {})
    assert vmm_logs.begun([log], 2**33)
    with pytest.raises(HostProblem, match=r"console\.log\.times is no regular file"):
        await lines(log)


async def test_who_follows_sees_times_as_they_come_and_leaves_when_the_time_has(log: Path) -> None:
    seen(log, b"before\n", 1)
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    following = LocalVmFiles(log.parent, log.parent).stream(log, LogWish(follow=True, until=soon))
    assert (await anext(following)).time == at(1)
    seen(log, b"af", 2)
    assert (await anext(following)).time == at(2)
    seen(log, b"ter\nlate", 3)
    assert [(piece.data, piece.time) async for piece in following] == [(b"ter\n", at(2)), (b"late", at(3))]
