"""What the doctor says of an engine that a host may do without."""

import json
from pathlib import Path

import pytest

from ingle.api_server import config
from ingle.api_server.doctor.firecracker import firecracker_check
from ingle.api_server.model.errors import InvalidArgument


def configured(root: Path, **variables: str) -> config.Config:
    return config.load({"HOME": str(root), "XDG_RUNTIME_DIR": str(root), **variables})


def program(root: Path, version: str) -> str:
    path = root / "firecracker"
    path.write_text(f"#!/bin/sh\necho Firecracker v{version}\n")
    path.chmod(0o755)
    return str(path)


async def test_who_does_not_ask_for_it_does_not_miss_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.api_server.host.tool.search_path", lambda: "/usr/bin:/bin")
    check = await firecracker_check(configured(tmp_path))
    assert (check.status, check.detail) == ("pass", "not installed: VMs run in QEMU")


@pytest.mark.parametrize("wish", [{"INGLE_ENGINE": "firecracker"}, {"INGLE_FIRECRACKER": "/no/firecracker"}])
async def test_who_asks_for_it_is_told_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: dict[str, str]
) -> None:
    monkeypatch.setattr("ingle.api_server.host.tool.search_path", lambda: "/usr/bin:/bin")
    check = await firecracker_check(configured(tmp_path, **wish))
    assert check.status == "fail"
    assert "ingle engine install firecracker" in check.remedy


async def test_one_that_is_there_is_told_with_its_version(tmp_path: Path) -> None:
    path = program(tmp_path, "1.12.1")
    check = await firecracker_check(configured(tmp_path, INGLE_FIRECRACKER=path))
    assert (check.status, check.detail) == ("pass", f"{path}, 1.12.1")


async def test_one_that_is_too_old_is_told(tmp_path: Path) -> None:
    check = await firecracker_check(configured(tmp_path, INGLE_FIRECRACKER=program(tmp_path, "1.9.0")))
    assert check.status == "fail"
    assert "too old" in check.detail


async def test_a_guest_that_did_not_boot_in_it_is_told(tmp_path: Path) -> None:
    found = configured(tmp_path, INGLE_FIRECRACKER=program(tmp_path, "1.12.1"))
    verdicts = found.paths.acceleration_verdicts
    verdicts.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (verdicts / "firecracker-ab.json").write_text(json.dumps({"host_boot": boot, "problem": "a probe guest hung"}))
    check = await firecracker_check(found)
    assert check.status == "warn"
    assert "a probe guest hung" in check.detail


@pytest.mark.parametrize("program", ["", "bin/firecracker", "./firecracker"])
def test_a_path_that_depends_on_where_one_is_can_not_be_set(tmp_path: Path, program: str) -> None:
    with pytest.raises(InvalidArgument, match="name of a program or an absolute path"):
        configured(tmp_path, INGLE_FIRECRACKER=program)
