"""The Debian package: installed, used, upgraded under a running VM, removed and purged."""

import grp
import json
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.inside.conftest import INGLE, User, lab_run, package

UNITS = ("ingle-helper.service", "ingle-helper-dm.service", "ingle.service")
CODE = Path("/usr/lib/ingle")

# dpkg's and passwd's own records, and logs.
RECORDS = ("/var/lib/dpkg/", "/var/log/", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-")


def files() -> set[str]:
    """What is on the machine's disk where packages and services put things."""
    found = lab_run("find", "/etc", "/usr", "/opt", "/var", "-xdev").splitlines()
    return {path for path in found if not path.startswith(RECORDS)}


def install() -> None:
    lab_run("dpkg", "--install", str(package()))


def status(code: int = 0) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(lab_run("ingle", "system", "status", "--json", code=code))
    return told


def main_pids() -> list[str]:
    return lab_run("systemctl", "show", "--value", "--property", "MainPID", *UNITS).split()


@pytest.fixture(scope="module")
def untouched(unlinked: None) -> set[str]:
    """The machine before."""
    return files()


@pytest.fixture(scope="module")
def user(untouched: set[str], kernel: Path) -> Iterator[User]:
    """Somebody in the group ingle, on a machine with the package."""
    install()
    lab_run("usermod", "--append", "--groups", "ingle", "other")
    user = User("other")
    release = kernel.name.removeprefix("vmlinuz-")
    user.run("ingle", "kernel", "import", str(kernel), "--modules", f"/lib/modules/{release}", "--name", "debian")
    user.run("ingle", "image", "register", "--rootfs", "/opt/lab/debian.ext4", "--name", "debian:bookworm")
    yield user
    lab_run("dpkg", "--purge", "ingle")


def test_everything_runs_and_is_dpkgs(user: User) -> None:
    told = status()
    assert (told["healthy"], told["installed_by"], told["prefix"]) == (True, "dpkg", str(CODE))
    assert {unit["unit"]: (unit["active"], unit["enabled"]) for unit in told["units"]} == dict.fromkeys(
        UNITS, ("active", "enabled")
    )
    assert {file["condition"] for file in told["files"]} == {"current"}
    for file in told["files"]:
        assert lab_run("dpkg", "--search", file["path"]).startswith("ingle:"), file
    assert "installed by  its Debian package" in lab_run("ingle", "system", "status")


def test_a_member_of_the_group_runs_vms_under_kvm_on_the_machines_network(user: User) -> None:
    user.run("ingle", "vm", "create", "--name", "web", "--nat")
    try:
        told = json.loads(user.run("ingle", "vm", "show", "web", "--json"))
        assert told["running_acceleration"] == "kvm"
        assert "ingle" in lab_run("nft", "list", "tables")
        user.run("ingle", "vm", "exec", "web", "--", "sh", "-c", "exit 42", code=42)
    finally:
        user.run("ingle", "vm", "delete", "--force", "web")


def test_vms_survive_an_upgrade(user: User) -> None:
    user.run("ingle", "vm", "create", "--name", "kept")
    try:
        before = user.run("ingle", "vm", "exec", "kept", "--", "cat", "/proc/sys/kernel/random/boot_id")
        pids = main_pids()
        install()
        assert not set(main_pids()) & {*pids, "0"}
        assert user.run("ingle", "vm", "exec", "kept", "--", "cat", "/proc/sys/kernel/random/boot_id") == before
        assert status()["healthy"] is True
    finally:
        user.run("ingle", "vm", "delete", "--force", "kept")


def test_an_upgrade_keeps_what_the_operator_has_decided(user: User) -> None:
    policy = Path("/etc/ingle/helper.toml")
    policy.write_text(f"{policy.read_text()}max_taps = 7\n")
    lab_run("systemctl", "disable", "--now", "ingle-helper-dm.service")
    install()
    assert "max_taps = 7" in policy.read_text()
    told = status()
    assert told["healthy"] is True
    assert [unit["unit"] for unit in told["units"]] == ["ingle-helper.service", "ingle.service"]
    lab_run("systemctl", "enable", "--now", "ingle-helper-dm.service")


@pytest.mark.parametrize("ingle", ["ingle", INGLE])
@pytest.mark.parametrize("verb", [["install"], ["upgrade"], ["uninstall", "--yes"]])
def test_system_commands_leave_it_to_apt(user: User, ingle: str, verb: list[str]) -> None:
    pids = main_pids()
    ended = subprocess.run([ingle, "system", *verb], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "installed here by its Debian package" in ended.stderr
    assert main_pids() == pids
    assert not Path("/etc/systemd/system/ingle.service").exists()


def test_dpkg_knows_every_file_of_the_code(user: User) -> None:
    """Whatever root has run since: no bytecode was written beside it."""
    known = set(lab_run("dpkg", "--listfiles", "ingle").splitlines())
    assert {str(path) for path in (CODE, *CODE.rglob("*"))} <= known
    assert lab_run("dpkg", "--verify", "ingle", "python3").replace("??5?????? c /etc/ingle/helper.toml\n", "") == ""


def test_a_removal_leaves_state_and_a_purge_leaves_nothing(user: User, untouched: set[str]) -> None:
    user.run("ingle", "vm", "create", "--name", "doomed")
    uid = pwd.getpwnam("ingle").pw_uid
    lab_run("dpkg", "--remove", "ingle")
    assert subprocess.run(["pgrep", "-a", "-u", str(uid)], check=False).returncode == 1
    assert [str(path) for path in Path("/run").glob("ingle*")] == []
    assert [link for link in lab_run("ip", "-brief", "link").split() if link.startswith("ing")] == []
    assert "ingle" not in lab_run("nft", "list", "tables")
    assert "INGLE" not in lab_run("dmsetup", "info", "--columns", "--noheadings", "--options", "uuid")
    assert lab_run("systemctl", "list-units", "--no-legend", "ingle*") == ""
    # Installed again it finds what there was.
    install()
    assert json.loads(user.run("ingle", "vm", "show", "doomed", "--json"))["state"] in {"error", "stopped"}
    assert status()["healthy"] is True
    lab_run("dpkg", "--purge", "ingle")
    assert files() == untouched
    with pytest.raises(KeyError):
        pwd.getpwnam("ingle")
    with pytest.raises(KeyError):
        grp.getgrnam("ingle")


def test_a_machine_that_was_installed_by_hand_is_refused(untouched: set[str]) -> None:
    lab_run(INGLE, "system", "install")
    try:
        ended = subprocess.run(["dpkg", "--install", str(package())], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert "sudo ingle system uninstall" in ended.stderr
        assert not CODE.exists()
    finally:
        lab_run("ingle", "system", "uninstall", "--purge", "--yes")
