"""What README tells an operator to type, word for word, on a machine that has nothing of ingle.

What the lab lacks is a mirror: the package is made beforehand, and kernel and image come from files.
"""

import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest

from lab.inside.conftest import User, lab_run, package

README = Path(__file__).parents[3] / "README.md"


def section(title: str) -> str:
    """The text below a heading of README."""
    return README.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str) -> list[list[str]]:
    """The lines of each fenced block."""
    return [block.strip().splitlines() for block in re.findall(r"```\n(.*?)```", text, re.DOTALL)]


def typed(command: str, directory: Path) -> str:
    """What a command of root's says; whatever it asks is answered with yes."""
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
    return ended.stdout


def test_the_operators_path_leads_to_a_vm_and_back(unlinked: None, kernel: Path, tmp_path: Path) -> None:
    text = section("For a whole machine")
    (make, *installing), (run, shown) = blocks(text)
    assert make == "$ make deb"
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / package().name).symlink_to(package())
    lab_run("useradd", "--create-home", "--shell", "/bin/bash", "alice")
    try:
        for command in installing:
            typed(command.removeprefix("$ "), tmp_path)
        alice = User("alice")
        release = kernel.name.removeprefix("vmlinuz-")
        alice.run("ingle", "kernel", "import", str(kernel), "--modules", f"/lib/modules/{release}", "--name", "debian")
        alice.run("ingle", "image", "register", "--rootfs", "/opt/lab/debian.ext4", "--name", "debian:bookworm")
        assert alice.run("bash", "-c", run.removeprefix("$ ")).strip() == release
        assert re.fullmatch(r"[0-9.-]+-cloud-amd64", shown)
        ending, purging = re.findall(r"`(sudo apt \w+ ingle)`", text)
        typed(ending, tmp_path)
        assert subprocess.run(["pgrep", "-u", "ingle"], check=False).returncode == 1
        assert Path("/var/lib/ingle").is_dir()
        typed(purging, tmp_path)
        assert not Path("/var/lib/ingle").exists()
        with pytest.raises(KeyError):
            pwd.getpwnam("ingle")
    finally:
        lab_run("userdel", "--remove", "alice")
