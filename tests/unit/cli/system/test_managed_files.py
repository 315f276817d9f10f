"""The files of a system install, and how they are told from those of others."""

import configparser
import re
import stat
from pathlib import Path

import pytest

from ingle.cli.system.files import (
    BY_COMMAND,
    BY_PACKAGE,
    UNITS,
    Condition,
    Layout,
    ManagedFile,
    former_files,
    managed_files,
)
from ingle.cli.system.installation import _remove

MARK = BY_COMMAND.mark


@pytest.mark.parametrize("layout", [BY_COMMAND, BY_PACKAGE])
def test_nothing_is_left_to_fill_in(layout: Layout) -> None:
    for file in managed_files(Path("/opt/ingle"), "makers", layout=layout):
        assert file.path.is_relative_to(layout.directory)
        assert file.content.startswith(layout.mark)
        assert re.findall("@[A-Z]+@", file.content) == [], file.path


def test_the_server_is_run_from_the_code_of_the_install_for_the_group() -> None:
    unit = next(file for file in managed_files(Path("/opt/ingle"), "makers") if file.path.name == "ingle.service")
    settings = configparser.ConfigParser(strict=False, interpolation=None)
    settings.optionxform = str  # type: ignore[assignment,method-assign] # as the module's documentation says
    settings.read_string(unit.content)
    assert settings["Service"]["ExecStart"] == "/opt/ingle/bin/ingle-server serve --system"
    assert settings["Service"]["Group"] == "makers"
    assert settings["Service"]["User"] == "ingle"
    assert settings["Service"]["KillMode"] == "process"
    assert settings["Service"]["CapabilityBoundingSet"] == ""


def test_every_unit_is_among_the_files(tmp_path: Path) -> None:
    places = {file.path for file in managed_files(Path("/opt/ingle"), "ingle", root=tmp_path)}
    assert {tmp_path / "etc/systemd/system" / unit for unit in UNITS} <= places
    assert all(place.is_relative_to(tmp_path) for place in places)


def test_the_condition_of_a_file(tmp_path: Path) -> None:
    file = ManagedFile(tmp_path / "etc" / "some.conf", MARK + "setting = 1\n", BY_COMMAND)
    assert file.condition() is Condition.MISSING
    file.write()
    assert file.condition() is Condition.CURRENT
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o644
    file.path.write_text(MARK + "setting = 2\n")
    assert file.condition() is Condition.DIFFERENT
    file.write()
    assert file.condition() is Condition.CURRENT
    assert [path.name for path in file.path.parent.iterdir()] == ["some.conf"]


def test_what_made_the_host_forward_everything_goes_and_what_others_wrote_there_stays(tmp_path: Path) -> None:
    (file,) = former_files(tmp_path)
    assert file.path == tmp_path / "etc/sysctl.d/60-ingle.conf"
    file.path.parent.mkdir(parents=True)
    for content in ("net.ipv4.ip_forward = 1\n", MARK + "net.ipv4.ip_forward = 1\n"):
        file.path.write_text(content)
        _remove([file], lambda _: None)
        assert file.path.exists() is not content.startswith(MARK)


@pytest.mark.parametrize("content", ["", "setting = 1\n", "# mine\n"])
def test_what_somebody_else_wrote_is_foreign(tmp_path: Path, content: str) -> None:
    file = ManagedFile(tmp_path / "some.conf", MARK + "setting = 1\n", BY_COMMAND)
    file.path.write_text(content)
    assert file.condition() is Condition.FOREIGN


def test_a_directory_in_its_place_is_foreign(tmp_path: Path) -> None:
    file = ManagedFile(tmp_path / "some.conf", MARK, BY_COMMAND)
    file.path.mkdir()
    assert file.condition() is Condition.FOREIGN
