"""What goes to a guest is what a file held at one moment, or nothing."""

import io
import tarfile
from pathlib import Path

import pytest

from ingle.cli import packing
from ingle.cli.errors import CliError
from ingle.cli.packing import Told, pack


def emptying(path: Path) -> Told:
    """Empties a file once its size is known."""

    def empty(_name: str, _size: int) -> None:
        path.write_bytes(b"")

    return empty


class Archive(io.BytesIO):
    """What was packed."""

    def content(self, name: str) -> bytes:
        self.seek(0)
        with tarfile.open(fileobj=self) as archive:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()


def test_what_is_added_while_a_file_is_read_is_none_of_the_copy(tmp_path: Path) -> None:
    path, packed = tmp_path / "log", Archive()
    path.write_bytes(b"a" * 1_000_000)

    def grow(_name: str, _size: int) -> None:
        with path.open("ab") as file:
            file.write(b"b" * 1000)

    pack(path, "log", packed, grow)
    assert packed.content("log") == b"a" * 1_000_000


def test_a_large_file_that_shrinks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * 1_000_000)
    with pytest.raises(CliError, match="shrank"):
        pack(path, "log", Archive(), emptying(path))


def test_a_small_file_is_taken_at_one_moment(tmp_path: Path) -> None:
    path, packed = tmp_path / "state", Archive()
    path.write_bytes(b"a" * 1000)
    pack(path, "state", packed, emptying(path))
    assert packed.content("state") == b"a" * 1000


def test_a_file_that_tells_no_size_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_MOST_UNTOLD", 512 * 1024)
    with pytest.raises(CliError, match="holds more than 524288"):
        pack(Path("/proc/kallsyms"), "kallsyms", Archive(), lambda _name, _size: None)


def test_a_tree_of_any_depth_goes(tmp_path: Path) -> None:
    paths = [tmp_path / ("t" + "/d" * depth) for depth in range(1501)]
    for path in paths:
        path.mkdir()
    told: list[str] = []
    try:
        pack(tmp_path / "t", "t", Archive(), lambda name, _size: told.append(name))
    finally:
        for path in reversed(paths):
            path.rmdir()
    assert told == ["t" + "/d" * depth for depth in range(1501)]


def test_what_is_removed_meanwhile_is_none_of_the_copy(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "t" / name).write_text(name)
    told: list[str] = []

    def remove(name: str, _size: int) -> None:
        told.append(name)
        (tmp_path / "t" / "b").unlink(missing_ok=True)

    pack(tmp_path / "t", "t", Archive(), remove)
    assert told == ["t", "t/a", "t/c"]
