"""Files: each promise of the module that others build on."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from ingle.api_server.host import files
from ingle.api_server.host.threads import Stop
from ingle.api_server.model.errors import HostProblem, Reason


def test_an_atomic_write_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"old")
    files.write_atomically(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_atomic_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write_atomically(path, b"a file can't replace a directory")
    assert list(tmp_path.iterdir()) == [path]


def test_a_sparse_copy_keeps_holes_and_content(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with open(source, "wb") as file:
        file.truncate(64 << 20)
        file.seek(20 << 20)
        file.write(b"in the middle")
        file.seek(40 << 20)
        file.write(os.urandom(1 << 20))
    files.copy_sparse(source, target)
    assert files.sha256(target) == files.sha256(source)
    assert files.allocated_bytes(target) <= files.allocated_bytes(source)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_file_that_is_all_hole_is_copied_as_one(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.touch()
    os.truncate(source, 1 << 30)
    files.copy_sparse(source, target)
    assert target.stat().st_size == 1 << 30
    assert files.allocated_bytes(target) == 0


def test_a_copy_never_overwrites(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        files.copy_sparse(source, target)
    assert target.read_bytes() == b"old"


def test_a_new_file_is_gone_when_making_it_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), files.new_file(tmp_path / "file", 0o600):
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_host_problem_that_says_where(tmp_path: Path) -> None:
    where = f"at {files.mount_point(tmp_path)}$"
    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(HostProblem, match=where) as raised, files.disk_full_reported(tmp_path):
            raise OSError(number, os.strerror(number))
        assert raised.value.reason is Reason.DISK_FULL


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), files.disk_full_reported(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_removing_a_tree_copes_with_unwritable_directories_and_symlinks(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("stays")
    tree = tmp_path / "tree"
    locked = tree / "a" / "locked"
    locked.mkdir(parents=True)
    (locked / "file").touch()
    (locked / "link").symlink_to(outside)
    (tree / "link").symlink_to(tmp_path)
    locked.chmod(0)
    (tree / "a").chmod(0o500)
    files.remove_tree(tree)
    assert list(tmp_path.iterdir()) == [outside]


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    files.remove_tree(tmp_path / "nothing")


def test_removing_a_symlink_removes_the_link_only(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.remove_tree(tmp_path / "link")
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]


def test_the_hash_is_that_of_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3_000_001))
    expected = subprocess.run(["sha256sum", path], capture_output=True, check=True, text=True).stdout.split()[0]
    assert files.sha256(path) == expected


def test_a_tree_that_is_deeper_than_a_path_can_be_long_is_removed(tmp_path: Path) -> None:
    """As an archive unpacks it, whose names are relative to where they go."""
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for level in range(40):
        name = f"{level:0200}"
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.chmod(name, 0o500, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    files.remove_tree(tree)
    assert not tree.exists()


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"\0" * (1 << 20)],
        [b"x", b"\0" * (1 << 20)],
        [b"\0" * (1 << 17), b"x" * 10, b"\0" * (1 << 18), b"y" * (1 << 16), b"\0" * 100],
        [b"x" * (1 << 17), None, b"\0" * (1 << 17), b"x", None, b"\0" * (1 << 16)],
    ],
    ids=lambda pieces: " ".join("hole" if piece is None else f"{len(piece)}{chr(piece[0] or 48)}" for piece in pieces),
)
def test_zeros_become_holes_and_nothing_else_changes(tmp_path: Path, pieces: list[bytes | None]) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for piece in pieces:
            if piece is None:
                file.seek(1 << 17, os.SEEK_CUR)
            else:
                file.write(piece)
    before, allocated = path.read_bytes(), path.stat().st_blocks
    files.punch_zeros(Stop(), path)
    assert path.read_bytes() == before
    zeros = sum(before[at : at + 65536] == bytes(65536) for at in range(0, len(before), 65536))
    assert path.stat().st_blocks * 512 <= len(before) - zeros * 65536 + 4096
    assert path.stat().st_blocks <= allocated


def test_a_digest_is_of_what_is_read_whatever_of_it_are_holes(tmp_path: Path) -> None:
    sparse, full, other = (tmp_path / name for name in ("sparse", "full", "other"))
    data = os.urandom(150_000)
    with sparse.open("wb") as file:
        file.truncate(10_000_000)
        file.seek(1_000_001)
        file.write(data)
    full.write_bytes(sparse.read_bytes())
    assert files.content_digest(sparse) == files.content_digest(full)
    for at, byte in ((0, b"x"), (9_999_999, b"x"), (1_000_001, bytes([data[0] ^ 1]))):
        other.write_bytes(full.read_bytes())
        with other.open("r+b") as file:
            file.seek(at)
            file.write(byte)
        assert files.content_digest(other) != files.content_digest(full), at
    other.write_bytes(full.read_bytes() + b"\0")
    assert files.content_digest(other) != files.content_digest(full)
    moved = data[65536:] + data[:65536]
    other.write_bytes(bytes(1_000_001) + moved + bytes(10_000_000 - 1_000_001 - len(moved)))
    assert files.content_digest(other) != files.content_digest(full)
