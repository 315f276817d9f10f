"""VMMs are found by what they are, and nothing else is taken for one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingle.api_server.adapters.vmm import FoundVmms, vmms_below
from ingle.api_server.adapters.vmm.found import process_name
from ingle.api_server.host.files import remove_tree
from ingle.api_server.host.process import start_time_of
from ingle.api_server.model.vm import Acceleration, LiveVmm
from ingle.api_server.ports.engine import VmPaths

ID, OTHER = "0123456789ab", "ba9876543210"


@pytest.fixture
def paths(tmp_path: Path) -> VmPaths:
    for vm_id in (ID, OTHER):
        (tmp_path / "vms" / vm_id).mkdir(parents=True)
    return VmPaths(tmp_path / "vms" / ID, tmp_path / "run" / ID)


@contextmanager
def working(directory: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process there, with these arguments."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", *arguments],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        # Until it speaks, it may be amid exec(), when a process has no arguments at all.
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_a_vmm_of_any_engine_is_found_and_killed_by_its_vm(paths: VmPaths) -> None:
    with working(paths.state, "--of-any-engine", process_name(ID)) as vmm:
        assert vmms_below(paths.state.parent) == {ID: vmm.pid}
        await FoundVmms().kill_all(paths)
        assert vmm.wait() == -9
        assert vmms_below(paths.state.parent) == {}


async def test_a_vmm_whose_directory_is_gone_is_killed_all_the_same(paths: VmPaths) -> None:
    with working(paths.state, process_name(ID)) as vmm:
        remove_tree(paths.state)
        await FoundVmms().kill_all(paths)
        assert vmm.wait() == -9


async def test_who_speaks_of_a_vmm_and_another_vms_are_left_alone(paths: VmPaths, tmp_path: Path) -> None:
    other = paths.state.with_name(OTHER)
    with working(tmp_path, process_name(ID)) as grep, working(other, process_name(OTHER)) as another:
        await FoundVmms().kill_all(paths)
        assert grep.poll() is another.poll() is None
        assert vmms_below(paths.state.parent) == {OTHER: another.pid}


async def test_a_vmm_is_found_where_a_link_leads_to_its_directory(paths: VmPaths, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(paths.state.parent)
    with working(paths.state, process_name(ID)) as vmm:
        assert vmms_below(tmp_path / "link") == {ID: vmm.pid}
        await FoundVmms().kill_all(VmPaths(tmp_path / "link" / ID, paths.runtime))
        assert vmm.wait() == -9


def test_a_process_lives_as_itself_alone(paths: VmPaths) -> None:
    with working(paths.state) as process:
        start_time = start_time_of(process.pid)
        assert start_time is not None
        running = LiveVmm(process.pid, start_time, Acceleration.TCG, datetime.now(UTC))
        later = LiveVmm(process.pid, start_time + 1, Acceleration.TCG, datetime.now(UTC))
        assert FoundVmms().lives(running)
        assert not FoundVmms().lives(later)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not FoundVmms().lives(running), "nobody has waited for it yet"
    assert not FoundVmms().lives(running)
