"""Who may use the system's server, and since when: by processes that really have these users and groups."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from ingle.cli.findings import Check
from ingle.cli.system.membership import membership_check

DAEMON, BIN, NOGROUP = 1, 2, 65534
"""Ids that every Debian has; the user daemon is in the group daemon, by the account database."""

only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A directory that everybody can look at."""
    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def checked_as(uid: int, gid: int, groups: Sequence[int], runtime: Path) -> Check:
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
        check = membership_check(runtime)
        os.write(writer, json.dumps(check and asdict(check)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        told = json.load(answer)
    os.waitpid(pid, 0)
    return Check(**told)


def test_no_install_asks_for_no_group(tmp_path: Path) -> None:
    assert membership_check(tmp_path / "absent") is None


@only_root
def test_root_needs_no_group(runtime: Path) -> None:
    os.chown(runtime, 0, BIN)
    assert checked_as(0, 0, [], runtime).status == "pass"


@only_root
@pytest.mark.parametrize(("gid", "groups"), [(DAEMON, []), (NOGROUP, [DAEMON])])
def test_who_is_in_the_group_is_fine(runtime: Path, gid: int, groups: list[int]) -> None:
    os.chown(runtime, 0, DAEMON)
    assert checked_as(DAEMON, gid, groups, runtime) == Check("group", "pass", "daemon is in daemon")


@only_root
def test_who_was_not_yet_in_the_group_at_login_is_told_to_log_in_again(runtime: Path) -> None:
    os.chown(runtime, 0, DAEMON)
    check = checked_as(DAEMON, NOGROUP, [], runtime)
    assert (check.status, "was not yet when this session began" in check.detail) == ("warn", True)
    assert check.remedy == "log in again; or, for this shell alone, newgrp daemon"


@only_root
def test_who_is_not_in_the_group_is_told_how_to_get_there(runtime: Path) -> None:
    os.chown(runtime, 0, BIN)
    check = checked_as(DAEMON, DAEMON, [], runtime)
    assert (check.status, check.remedy) == ("warn", "sudo usermod -aG bin daemon, and log in again")


@only_root
def test_ids_without_a_name_are_told_as_they_are(runtime: Path) -> None:
    os.chown(runtime, 0, 54321)
    assert checked_as(54322, NOGROUP, [], runtime).detail.startswith("54322 is not in 54321")
