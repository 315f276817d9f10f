"""A VM's copy-on-write file is believed by the kernel, so nobody can change it between our look and the kernel's."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helper.process import UID
from ingle.host_helper import cow_file
from ingle.host_helper.errors import InUse, InvalidRequest

MIB = 1 << 20
GOOD = cow_file.HEADER.pack(cow_file.MAGIC, 1, 1, 8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk.cow"
    path.write_bytes(GOOD)
    os.truncate(path, 4 * MIB)
    if os.getuid() == 0:
        path.chmod(0o666)
        os.chown(path, UID, UID)
    return path


def checked(path: Path, size: int = 2 * MIB) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        cow_file.check("disk.cow", descriptor, size)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("header", [b"", bytes(16), GOOD, cow_file.HEADER.pack(cow_file.MAGIC, 0, 1, 8)])
def test_a_new_file_and_one_that_the_kernel_wrote_with_our_table_are_fine(file: Path, header: bytes) -> None:
    file.write_bytes(header)
    os.truncate(file, 4 * MIB)
    checked(file)


@pytest.mark.parametrize(
    "header",
    [
        cow_file.HEADER.pack(cow_file.MAGIC, 1, 1, 1 << 20),
        cow_file.HEADER.pack(cow_file.MAGIC, 1, 1, 0),
        cow_file.HEADER.pack(cow_file.MAGIC, 1, 1, 16),
        cow_file.HEADER.pack(cow_file.MAGIC, 1, 2, 8),
        cow_file.HEADER.pack(1, 0, 0, 0),
    ],
)
def test_a_header_that_overrides_the_table_is_refused(file: Path, header: bytes) -> None:
    file.write_bytes(header)
    with pytest.raises(InvalidRequest, match="chunks of"):
        checked(file)


def test_a_file_that_is_far_larger_than_the_disks_changes_is_refused(file: Path) -> None:
    os.truncate(file, 1 << 40)
    with pytest.raises(InvalidRequest, match="at most"):
        checked(file)


@pytest.mark.skipif("os.getuid() != 0", reason="only root gives files away")
def test_nobody_else_opens_it_meanwhile_and_it_is_its_owners_afterwards(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR)
    file.parent.chmod(0o755)
    directory = os.open(file.parent, os.O_PATH)  # the way to it is root's alone
    attempt = f"import os; os.setgroups([{UID}]); os.setgid({UID}); os.setuid({UID})"
    attempt += f"; os.open('disk.cow', os.O_RDWR, dir_fd={directory})"

    def opens() -> bool:
        argv = [sys.executable, "-I", "-S", "-c", attempt]
        return subprocess.run(argv, check=False, pass_fds=(directory,), stderr=subprocess.DEVNULL).returncode == 0

    assert opens()
    with cow_file.taken("disk.cow", descriptor, UID, UID):
        assert not opens()
        assert cow_file.is_ours(file.stat(), UID, UID)
    assert opens()
    assert (file.stat().st_uid, file.stat().st_gid) == (UID, UID)
    for each in (directory, descriptor):
        os.close(each)


@pytest.mark.skipif("os.getuid() != 0", reason="only root gives files away")
@pytest.mark.parametrize("mapped", [False, True])
def test_one_that_somebody_has_open_already_is_refused_and_stays_its_owners(file: Path, mapped: bool) -> None:
    descriptor = os.open(file, os.O_RDWR)
    held = os.open(file, os.O_RDWR)
    mapping = mmap.mmap(held, 4096) if mapped else None
    if mapped:
        os.close(held)
    with pytest.raises(InUse, match="another process has"), cow_file.taken("disk.cow", descriptor, UID, UID):
        raise AssertionError("taken")
    assert file.stat().st_uid == UID
    if mapping is None:
        os.close(held)
    else:
        mapping.close()
    with cow_file.taken("disk.cow", descriptor, UID, UID):
        pass
    os.close(descriptor)


def test_a_file_of_roots_that_is_not_from_us_is_not_ours(file: Path) -> None:
    status = list(file.stat())
    for owner, group, ours in (UID, UID, True), (UID, 0, True), (0, UID, True), (0, 0, False), (UID + 1, UID, False):
        status[4], status[5] = owner, group
        assert cow_file.is_ours(os.stat_result(status), UID, UID) is ours
