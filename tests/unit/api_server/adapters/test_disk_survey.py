"""What files take, as the host's kernel counts it."""

import os
from pathlib import Path

import pytest

from ingle.api_server.adapters import disk_survey
from ingle.api_server.adapters.disk_survey import HostDiskSurvey
from ingle.api_server.host.extents import shared_bytes
from ingle.api_server.ports.disk_survey import Measure

MIB = 1 << 20


async def test_holes_take_nothing_and_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(bytes(MIB))
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "written").write_bytes(os.urandom(MIB))
    with (tree / "sparse").open("wb") as file:
        file.truncate(100 * MIB)
    (tree / "link").symlink_to(outside)
    (tree / "out").symlink_to(tmp_path)
    os.sync()
    survey = await HostDiskSurvey().measure([tree, tree / "sparse", tmp_path / "absent"])
    assert survey.whole
    assert survey.measures[tree / "sparse"] == Measure(apparent=100 * MIB, files=1)
    assert survey.measures[tmp_path / "absent"] == Measure()
    found = survey.measures[tree]
    assert found.files == 4
    assert 101 * MIB <= found.apparent < 102 * MIB
    assert MIB <= found.allocated < 2 * MIB


async def test_what_a_log_has_forgotten_is_no_part_of_it(tmp_path: Path) -> None:
    """Also in the middle; what else is sparse is as large as it says."""
    for name in ("console.log", "server.log.1", "disk"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(50 * MIB)
            file.seek(10 * MIB)
            file.write(b"begun\n")
            file.seek(0, os.SEEK_END)
            file.write(b"and gone on with\n")
    os.mkfifo(tmp_path / "fifo.log")
    (tmp_path / "link.log").symlink_to(tmp_path / "disk")
    os.sync()
    logs = [tmp_path / "console.log", tmp_path / "server.log.1"]
    survey = await HostDiskSurvey().measure([*logs, tmp_path / "disk", tmp_path])
    assert [survey.measures[log].apparent for log in logs] == [23, 23]
    assert survey.measures[tmp_path / "disk"].apparent == 50 * MIB + 17
    assert survey.measures[tmp_path].apparent < 51 * MIB


async def test_more_files_than_are_looked_at_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_survey, "_MOST_FILES", 10)
    for number in range(20):
        (tmp_path / str(number)).touch()
    survey = await HostDiskSurvey().measure([tmp_path])
    assert not survey.whole
    assert survey.measures[tmp_path].files == 9


def test_a_file_that_can_not_be_asked_shares_nothing(tmp_path: Path) -> None:
    assert shared_bytes(tmp_path / "absent") == 0
    (tmp_path / "own").write_bytes(os.urandom(MIB))
    os.mkfifo(tmp_path / "fifo")
    os.sync()
    assert [shared_bytes(tmp_path / name) for name in ("own", "fifo")] == [0, 0]


def test_what_is_left_of_two_measures_is_never_less_than_nothing() -> None:
    whole, part = Measure(10, 10, 0, 2), Measure(4, 20, 0, 1)
    assert whole.without(part) == Measure(6, 0, 0, 1)
    assert whole + part == Measure(14, 30, 0, 3)


def test_a_directory_that_is_gone_has_the_room_of_where_it_would_be_made(tmp_path: Path) -> None:
    assert HostDiskSurvey().room(tmp_path / "cache" / "ingle").device == tmp_path.stat().st_dev
