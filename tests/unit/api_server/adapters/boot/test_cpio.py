"""The cpio writer: real cpio reads what it writes, and the same entries always make the same bytes."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from ingle.api_server.adapters.boot import cpio

ENTRIES = (
    cpio.directory("etc"),
    cpio.directory("tmp", 0o1777),
    cpio.file("etc/empty", b""),
    cpio.file("etc/odd", b"12345", 0o600),
    cpio.file("init", b"#!/bin/sh\n" * 1000, 0o755),
    cpio.character_device("console", 5, 1),
)


def listed(archive: bytes) -> dict[str, list[str]]:
    """What `cpio -itv` says of each name: mode, links, owner, group, size or device."""
    done = subprocess.run(["cpio", "-itv", "--quiet"], input=archive, capture_output=True, check=True)
    assert done.stderr == b""
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    return {line[-1]: line for line in lines}


def test_cpio_lists_all_entries_with_modes_owners_and_sizes() -> None:
    found = listed(cpio.archive(ENTRIES))
    assert list(found) == ["etc", "tmp", "etc/empty", "etc/odd", "init", "console"]
    assert found["tmp"][0] == "drwxrwxrwt"
    assert found["etc/odd"][:5] == ["-rw-------", "1", "root", "root", "5"]
    assert found["init"][0] == "-rwxr-xr-x"
    assert found["init"][4] == "10000"
    assert found["console"][0] == "crw-------"
    assert found["console"][4:6] == ["5,", "1"]


def test_cpio_unpacks_the_content(tmp_path: Path) -> None:
    regular = [entry for entry in ENTRIES if not stat.S_ISCHR(entry.mode)]
    subprocess.run(
        ["cpio", "-i", "--quiet", "--make-directories"], input=cpio.archive(regular), cwd=tmp_path, check=True
    )
    for entry in regular:
        if stat.S_ISREG(entry.mode):
            assert (tmp_path / entry.name).read_bytes() == entry.data


def test_the_same_entries_make_the_same_bytes() -> None:
    assert cpio.archive(ENTRIES) == cpio.archive(ENTRIES)
    assert cpio.archive(reversed(ENTRIES)) != cpio.archive(ENTRIES)


@pytest.mark.parametrize("size", range(8))
def test_every_header_and_every_appended_archive_is_aligned(size: int) -> None:
    archive = cpio.archive([cpio.file("a" * (size + 1), b"x" * size), cpio.file("b", b"")])
    assert len(archive) % 512 == 0
    offset = 0
    while archive[offset : offset + 6] == b"070701":
        length, name_length = (int(archive[offset + at : offset + at + 8], 16) for at in (54, 94))
        offset += (110 + name_length + 3) // 4 * 4 + (length + 3) // 4 * 4
    assert archive[offset:].strip(b"\0") == b""


def test_inode_numbers_differ_so_that_nothing_looks_like_a_hard_link() -> None:
    archive = cpio.archive(ENTRIES)
    numbers = [archive[at + 6 : at + 14] for at in range(0, len(archive), 4) if archive[at : at + 6] == b"070701"]
    assert len(set(numbers)) == len(numbers) == len(ENTRIES) + 1


def test_names_are_utf_8() -> None:
    archive = cpio.archive([cpio.file("ünï", b"")])
    assert "ünï".encode() in archive
    assert os.fsdecode("ünï".encode()) == "ünï"
