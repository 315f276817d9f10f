"""What the doctor finds, and what it says to do about it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingle.api_server import config, doctor
from ingle.api_server.doctor import Check
from ingle.api_server.host import rootlike
from unit.api_server.vmms import ME


async def findings(root: Path) -> dict[str, Check]:
    env = {"HOME": str(root), "XDG_RUNTIME_DIR": str(root), "XDG_STATE_HOME": str(root / "some" / "state")}
    return {check.name: check for check in await doctor.examine(config.load(env), ME)}


async def test_a_state_directory_that_is_not_there_yet_is_fine_when_it_can_be_made(tmp_path: Path) -> None:
    found = await findings(tmp_path)
    assert found["state directory"] == Check("state directory", "pass", f"{tmp_path}/some/state/ingle will be created")
    assert list(tmp_path.iterdir()) == [], "it changes nothing"


async def test_a_state_directory_that_can_not_be_made_is_told_with_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "some").write_text("in the way")
    check = (await findings(tmp_path))["state directory"]
    assert check.status == "fail"
    assert f"{tmp_path}/some is no directory" in check.detail
    assert "XDG_STATE_HOME" in check.remedy


@contextmanager
def vmm(vms: Path, vm_id: str) -> Iterator[int]:
    """The pid of a process that looks like the VM's."""
    directory = vms / vm_id
    directory.mkdir(parents=True)
    code = "import time; print(flush=True); time.sleep(60)"
    argv = [sys.executable, "-c", code, "-name", f"ingle-{vm_id}"]
    with subprocess.Popen(argv, cwd=directory, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


async def test_a_vm_that_the_database_does_not_know_is_told_with_what_ends_it(tmp_path: Path) -> None:
    """As when ingle.db was deleted: nothing else would ever say that it runs."""
    assert (await findings(tmp_path))["unknown VMs"].status == "pass"
    ours, others = tmp_path / "some/state/ingle/vms", tmp_path / "other/state/ingle/vms"
    with vmm(ours, "0123456789ab") as pid, vmm(others, "ba9876543210"):
        check = (await findings(tmp_path))["unknown VMs"]
    assert check.status == "warn"
    assert check.detail.startswith(f"0123456789ab (pid {pid}): running")
    assert check.remedy.startswith(f"kill -KILL {pid}  #")


async def test_a_directory_of_somebody_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    check = (await findings(tmp_path))["state directory"]
    assert check.status == "fail"
    assert f"{tmp_path} can't be written" in check.detail


@pytest.mark.parametrize(("fakechroot", "status"), [(True, "pass"), (False, "fail")])
async def test_where_user_namespaces_are_refused_fakechroot_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fakechroot: bool, status: str
) -> None:
    async def refused(_: object) -> None:
        return None

    (tmp_path / "bin").mkdir()
    if fakechroot:
        (tmp_path / "bin" / "fakechroot").write_text("#!/bin/sh\n")
        (tmp_path / "bin" / "fakechroot").chmod(0o755)
    monkeypatch.setattr(rootlike, "namespace", refused)
    monkeypatch.setattr("ingle.api_server.host.tool.search_path", lambda: str(tmp_path / "bin"))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    found = await findings(tmp_path)
    assert found["user namespaces"].status == status
    assert found["program debugfs"].remedy == "sudo apt install e2fsprogs"
    assert found["program unshare"].status == "fail"


def test_a_default_is_shown_as_it_can_be_typed(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "INGLE_MEMORY_BYTES": "1.5G"}
    shown = {setting.name: (setting.value, setting.origin) for setting in config.load(env).settings}
    assert shown["memory_bytes"] == ("1.50 GiB", "$INGLE_MEMORY_BYTES")
    assert shown["disk_bytes"] == ("8 GiB", "built-in")
    assert config.parse_size("8 GiB") == 8 << 30
