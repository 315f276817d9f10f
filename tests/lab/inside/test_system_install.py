"""Ingle as a service of the whole machine: installed, used by its group, restarted, mended and removed."""

import json
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.inside.commands import User, lab_run
from lab.inside.conftest import INGLE, package
from slow import slow

UNITS = ("ingle-helper.service", "ingle-helper-dm.service", "ingle.service")
MOST_EXPOSURE = 2.0
FILES = (
    *(f"/etc/systemd/system/{unit}" for unit in UNITS),
    "/etc/systemd/resolved.conf.d/ingle.conf",
    "/etc/sysusers.d/ingle.conf",
    "/etc/tmpfiles.d/ingle.conf",
)
DIRECTORIES = ("/var/lib/ingle", "/var/cache/ingle", "/run/ingle", "/etc/ingle")


def status(code: int = 0) -> dict[str, Any]:
    """What `ingle system status --json` says."""
    told: dict[str, Any] = json.loads(lab_run("ingle", "system", "status", "--json", code=code))
    return told


def test_everything_runs_and_is_as_written(member: User) -> None:
    told = status()
    assert told["healthy"] is True
    assert told["prefix"] == "/opt/ingle"
    assert [unit["unit"] for unit in told["units"]] == list(UNITS)
    assert {unit["active"] for unit in told["units"]} == {"active"}
    assert {unit["enabled"] for unit in told["units"]} == {"enabled"}
    assert {file["condition"] for file in told["files"]} == {"current"}


def test_the_server_is_an_ordinary_users_without_a_single_capability(member: User) -> None:
    pid = lab_run("systemctl", "show", "--value", "--property", "MainPID", "ingle.service").strip()
    found = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert found["Uid"].split() == [str(pwd.getpwnam("ingle").pw_uid)] * 4
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[kind], 16) == 0, kind
    assert found["NoNewPrivs"].strip() == "1"


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_exposes_little(member: User, unit: str) -> None:
    """The overall level of systemd-analyze(1): 0 is nothing, 10 is all."""
    report = lab_run("systemd-analyze", "security", "--no-pager", unit)
    level = float(report.rstrip().splitlines()[-1].split(":")[1].split()[0])
    assert level <= MOST_EXPOSURE, report


def test_the_code_is_roots_alone(member: User) -> None:
    for path in (Path("/opt/ingle"), *Path("/opt/ingle").rglob("*")):
        assert path.lstat().st_uid == 0
        assert path.is_symlink() or not path.stat().st_mode & 0o022, path


def test_installing_again_changes_nothing(member: User) -> None:
    before = lab_run("systemctl", "show", "--value", "--property", "MainPID", *UNITS)
    assert "nothing had to change" in lab_run(INGLE, "system", "install")
    assert lab_run("systemctl", "show", "--value", "--property", "MainPID", *UNITS) == before


def test_a_member_of_the_group_talks_to_it_and_runs_vms(member: User) -> None:
    told = json.loads(member.run("ingle", "server", "status", "--json"))
    assert told["system"] is True
    assert told["socket"] == "/run/ingle/api.sock"
    member.run("ingle", "vm", "run", "--rm", "--network", "user", "--", "sh", "-c", "exit 42", code=42)
    assert json.loads(member.run("ingle", "vm", "list", "--json")) == []


@slow
def test_who_is_no_member_can_not_open_the_socket_and_has_a_server_of_its_own(member: User, dev: User) -> None:
    knock = "import socket; socket.socket(socket.AF_UNIX).connect('/run/ingle/api.sock')"
    ended = subprocess.run(
        ["/usr/sbin/runuser", "-u", "dev", "--", "python3", "-c", knock], capture_output=True, text=True, check=False
    )
    assert "PermissionError" in ended.stderr
    assert json.loads(dev.run("ingle", "server", "status", "--json"))["socket"].startswith("/run/user/")


def test_a_member_can_not_stop_the_machines_server(member: User) -> None:
    member.run("ingle", "server", "stop", code=1)
    assert status()["healthy"] is True


def test_vms_survive_a_restart_of_the_services(member: User) -> None:
    member.run("ingle", "vm", "create", "--name", "kept", "--network", "user")
    try:
        told = json.loads(member.run("ingle", "vm", "show", "kept", "--json"))
        verdicts = [record.read_text() for record in Path("/var/cache/ingle/acceleration").iterdir()]
        assert told["running_acceleration"] == "kvm", verdicts
        before = member.run("ingle", "vm", "exec", "kept", "--", "cat", "/proc/sys/kernel/random/boot_id")
        pids = lab_run("systemctl", "show", "--value", "--property", "MainPID", *UNITS)
        lab_run(INGLE, "system", "restart")
        assert lab_run("systemctl", "show", "--value", "--property", "MainPID", *UNITS) != pids
        assert member.run("ingle", "vm", "exec", "kept", "--", "cat", "/proc/sys/kernel/random/boot_id") == before
    finally:
        member.run("ingle", "vm", "delete", "--force", "kept")


@slow
def test_what_was_changed_by_hand_is_told_and_mended(member: User) -> None:
    unit = Path("/etc/systemd/system/ingle.service")
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", "NoNewPrivileges=no"))
    told = status(code=1)
    assert [file["path"] for file in told["files"] if file["condition"] == "different"] == [str(unit)]
    assert str(unit) in lab_run(INGLE, "system", "status", code=1)
    lab_run(INGLE, "system", "install")
    assert status()["healthy"] is True


def test_its_debian_package_leaves_an_install_by_hand_alone(member: User) -> None:
    ended = subprocess.run(["dpkg", "--install", str(package())], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "sudo ingle system uninstall" in ended.stderr
    assert not Path("/usr/lib/ingle").exists()
    assert status()["healthy"] is True


def test_an_ordinary_user_installs_nothing(member: User) -> None:
    for verb in (["install"], ["restart"], ["upgrade"], ["uninstall", "--yes"]):
        member.run("ingle", "system", *verb, code=1)
    assert status()["healthy"] is True


@slow
def test_uninstalling_leaves_state_and_a_purge_leaves_nothing(member: User) -> None:
    member.run("ingle", "vm", "create", "--name", "doomed", "--network", "user")
    lab_run(INGLE, "system", "uninstall", "--yes")
    assert [path for path in FILES if Path(path).exists()] == []
    assert subprocess.run(["pgrep", "-u", "ingle"], check=False).returncode == 1
    assert [str(path) for path in Path("/run").glob("ingle*")] == []
    assert [link for link in lab_run("ip", "-brief", "link").split() if link.startswith("ing")] == []
    assert "ingle" not in lab_run("nft", "list", "tables")
    assert Path("/var/lib/ingle/ingle.db").exists()
    # Installed again it finds what there was.
    lab_run(INGLE, "system", "install")
    told = json.loads(member.run("ingle", "vm", "show", "doomed", "--json"))
    assert told["state"] in {"error", "stopped"}
    lab_run(INGLE, "system", "uninstall", "--purge", "--yes")
    assert [path for path in DIRECTORIES if Path(path).exists()] == []
    with pytest.raises(KeyError):
        pwd.getpwnam("ingle")


def test_what_somebody_else_made_is_not_overwritten() -> None:
    unit = Path("/etc/systemd/system/ingle.service")
    assert not unit.exists()
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    try:
        ended = subprocess.run([INGLE, "system", "install"], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert str(unit) in ended.stderr
        assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"
        assert not Path("/etc/sysusers.d/ingle.conf").exists()
    finally:
        unit.unlink()


def test_code_that_others_can_change_is_not_installed() -> None:
    package = next(Path("/opt/ingle/lib").glob("python3*/site-packages/ingle"))
    os.chown(package, pwd.getpwnam("dev").pw_uid, -1)
    try:
        ended = subprocess.run([INGLE, "system", "install"], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert f"{package} belongs to uid" in ended.stderr
        assert "sudo python3 -m venv /opt/ingle" in ended.stderr
    finally:
        os.chown(package, 0, -1)
