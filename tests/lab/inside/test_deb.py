"""The Debian package, installed and removed as README has an operator do it, word for word; used, and upgraded under a
running VM.

What the lab lacks is a mirror: the package is made beforehand, and kernel and image come from files.
"""

import grp
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.inside.commands import User, lab_run, with_kernel_and_image
from lab.inside.conftest import INGLE, package
from slow import slow

README = Path(__file__).parents[3] / "README.md"
UNITS = ("ingle-helper.service", "ingle-helper-dm.service", "ingle.service")
CODE = Path("/usr/lib/ingle")

# Records of dpkg's, apt's and passwd's own, and logs.
RECORDS = (
    *("/var/lib/dpkg/", "/var/lib/apt/", "/var/cache/apt/", "/var/cache/debconf/", "/var/log/"),
    *("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"),
)


@dataclass(frozen=True)
class OperatorsPath:
    """What README tells: commands of root's that install, the first one of a member's with what it shows, and commands
    of root's that remove and purge."""

    install: list[str]
    first: str
    shown: str
    remove: str
    purge: str


def operators_path() -> OperatorsPath:
    text = README.read_text().partition("\n## For a whole machine\n")[2].partition("\n## ")[0]
    (make, *installing), (first, shown) = (
        block.strip().splitlines() for block in re.findall(r"```\n(.*?)```", text, re.DOTALL)
    )
    assert make == "$ make deb"
    remove, purge = re.findall(r"`(sudo apt \w+ ingle)`", text)
    install = [command.removeprefix("$ ") for command in installing]
    return OperatorsPath(install, first.removeprefix("$ "), shown, remove, purge)


def typed(command: str, directory: Path) -> None:
    """By root; whatever it asks is answered with yes."""
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": os.defpath + ":/usr/sbin:/sbin"},
        input="y\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"


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
def untouched(unlinked: None) -> Iterator[set[str]]:
    """The machine before, but for somebody new on it."""
    lab_run("useradd", "--create-home", "--shell", "/bin/bash", "alice")
    yield files()
    lab_run("userdel", "--remove", "alice")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which `make deb` has been typed."""
    directory = tmp_path_factory.mktemp("clone")
    (directory / "build").mkdir()
    (directory / "build" / package().name).symlink_to(package())
    return directory


@pytest.fixture(scope="module")
def user(untouched: set[str], clone: Path, kernel: Path) -> Iterator[User]:
    """Alice, whom README has made a member of the group ingle, on a machine with the package."""
    for command in operators_path().install:
        typed(command, clone)
    with_kernel_and_image(User("root"), kernel)
    yield User("alice")
    lab_run("dpkg", "--purge", "ingle")


def test_the_operators_path_leads_to_a_vm(user: User, kernel: Path) -> None:
    path = operators_path()
    assert user.run("bash", "-c", path.first).strip() == kernel.name.removeprefix("vmlinuz-")
    assert re.fullmatch(r"[0-9.-]+-cloud-amd64", path.shown)


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


@slow
def test_an_upgrade_keeps_vms_and_what_the_operator_has_decided(user: User) -> None:
    policy = Path("/etc/ingle/helper.toml")
    policy.write_text(f"{policy.read_text()}max_taps = 7\n")
    lab_run("systemctl", "disable", "--now", "ingle-helper-dm.service")
    user.run("ingle", "vm", "create", "--name", "kept")
    try:
        before = user.run("ingle", "vm", "exec", "kept", "--", "cat", "/proc/sys/kernel/random/boot_id")
        pids = main_pids()
        install()
        assert not set(main_pids()) & (set(pids) - {"0"})
        assert user.run("ingle", "vm", "exec", "kept", "--", "cat", "/proc/sys/kernel/random/boot_id") == before
    finally:
        user.run("ingle", "vm", "delete", "--force", "kept")
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
    assert lab_run("dpkg", "--verify", "ingle", "python3") == ""


def test_a_removal_leaves_state_and_a_purge_leaves_nothing(user: User, clone: Path, untouched: set[str]) -> None:
    user.run("ingle", "vm", "create", "--name", "doomed")
    uid = pwd.getpwnam("ingle").pw_uid
    path = operators_path()
    typed(path.remove, clone)
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
    typed(path.purge, clone)
    assert files() == untouched
    with pytest.raises(KeyError):
        pwd.getpwnam("ingle")
    with pytest.raises(KeyError):
        grp.getgrnam("ingle")
