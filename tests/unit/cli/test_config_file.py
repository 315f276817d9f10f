"""A person's configuration file, changed by a program that leaves the rest as it is."""

import os
import tempfile
from pathlib import Path

import pytest

from ingle.cli.config_file import ChangedMeanwhile, changed, read, replace
from ingle.cli.errors import CliError

FILE = Path("config.toml")
_NOBODY = 65534
TEXT = """# mine
image = "debian:bookworm"   # the old one

  memory_bytes = 1024# no blank
"vcpus" = 2
"""


@pytest.mark.parametrize(
    ("changes", "old", "new"),
    [
        ({"image": "debian:trixie"}, '"debian:bookworm"', '"debian:trixie"'),
        ({"image": 'a"b\\c'}, '"debian:bookworm"', '"a\\"b\\\\c"'),
        ({"memory_bytes": "2G"}, "1024#", '"2G"#'),
        ({"vcpus": "4"}, "= 2\n", "= 4\n"),
        ({"vcpus": None}, '"vcpus" = 2\n', ""),
        ({"image": None}, 'image = "debian:bookworm"   # the old one\n', ""),
        ({"kernel": "mine"}, '"vcpus" = 2\n', '"vcpus" = 2\nkernel = "mine"\n'),
        ({"kernel": None}, "", ""),
    ],
)
def test_a_value_changes_and_nothing_else(changes: dict[str, str | None], old: str, new: str) -> None:
    assert changed(TEXT, changes, FILE) == (TEXT.replace(old, new) if old else TEXT)


def test_a_file_without_a_last_line_end_and_one_with_windows_ones_are_kept_right() -> None:
    assert changed("vcpus = 1", {"image": "x"}, FILE) == 'vcpus = 1\nimage = "x"\n'
    assert changed('vcpus = "1"\n', {"image": "x"}, FILE) == 'vcpus = "1"\nimage = "x"\n'
    assert changed("vcpus = 1\r\n", {"vcpus": "2"}, FILE) == "vcpus = 2\r\n"


def test_settings_stand_before_the_tables_which_are_left_alone() -> None:
    text = 'image = "x"\n\n# of each\n[quotas]\nvcpus = 4\n'
    assert changed(text, {"vcpus": "2"}, FILE) == text.replace("\n\n#", "\nvcpus = 2\n\n#")
    assert changed("[quotas]\nvcpus = 4\n", {"vcpus": "2"}, FILE) == "vcpus = 2\n[quotas]\nvcpus = 4\n"
    assert changed(text, {"vcpus": None, "image": None}, FILE) == text.removeprefix('image = "x"\n')


@pytest.mark.parametrize("text", ['image = """\nvcpus = 3\n"""\n', 'image = """a\nb"""\n'])
def test_what_is_not_that_simple_is_left_to_an_editor(text: str) -> None:
    with pytest.raises(CliError, match="not as simple"):
        changed(text, {"image": "x", "vcpus": "1"}, FILE)


def test_what_is_no_toml_is_told_with_its_place() -> None:
    with pytest.raises(CliError, match=r"config.toml: .*line 1"):
        changed("image = \n", {"vcpus": "1"}, FILE)


def test_a_file_is_replaced_behind_its_link_with_its_mode(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real, link = tmp_path / "dotfiles/config.toml", tmp_path / "config.toml"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    replace(link, "new", "old")
    assert (read(link), link.is_symlink(), real.stat().st_mode & 0o777) == ("new", True, 0o600)
    assert sorted(entry.name for entry in real.parent.iterdir()) == ["config.toml"]
    replace(tmp_path / "made/on/demand.toml", "x", "")
    assert read(tmp_path / "made/on/demand.toml") == "x"
    assert read(tmp_path / "nothing") == ""


def test_what_has_another_text_by_now_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("theirs")
    with pytest.raises(ChangedMeanwhile):
        replace(path, "mine", "what was there")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("theirs", [path])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_what_is_read_only_stays() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "config.toml")
        path.write_text("kept")
        path.chmod(0o444)
        os.chown(directory, _NOBODY, _NOBODY)
        os.chown(path, _NOBODY, _NOBODY)
        child = os.fork()
        if child == 0:
            refused = 1
            os.setuid(_NOBODY)
            try:
                replace(path, "lost", "kept")
            except PermissionError:
                refused = 0
            os._exit(refused)
        assert os.waitpid(child, 0)[1] == 0
        assert path.read_text() == "kept"


@pytest.mark.parametrize("kind", ["fifo", "endless", "directory"])
def test_what_is_in_the_place_of_the_file_and_none_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.toml"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case _:
            path.mkdir()
    with pytest.raises((CliError, IsADirectoryError)):
        read(path)
