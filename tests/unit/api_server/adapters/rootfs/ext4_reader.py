"""Looking into an ext4 file without mounting it, with debugfs and e2fsck."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Inode:
    """What debugfs tells of one."""

    number: int
    kind: str
    mode: int
    uid: int
    gid: int
    links: int


def debugfs(image: Path, command: str) -> str:
    done = subprocess.run(
        ["debugfs", "-R", command, image], capture_output=True, check=True, env={"PATH": _PATH, "PAGER": "cat"}
    )
    return done.stdout.decode(errors="surrogateescape")


def inode(image: Path, path: str) -> Inode:
    text = debugfs(image, f'stat "{path}"')
    number, kind, mode, uid, gid, links = (
        re.search(rf"{label}:\s+(\w+)", text)[1]  # type: ignore[index]
        for label in ("Inode", "Type", "Mode", "User", "Group", "Links")
    )
    return Inode(int(number), kind, int(mode, 8), int(uid), int(gid), int(links))


def content(image: Path, path: str) -> bytes:
    return debugfs(image, f'cat "{path}"').encode(errors="surrogateescape")


def names(image: Path, path: str) -> set[str]:
    listed = debugfs(image, f'ls -p "{path}"')
    return {line.split("/")[5] for line in listed.splitlines() if line} - {".", "..", ""}


def check(image: Path) -> None:
    """Raise unless it is a perfect file system."""
    subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True, env={"PATH": _PATH})


def groups(image: Path) -> list[str]:
    """One line for each block group, with its flags."""
    done = subprocess.run(["dumpe2fs", image], check=True, capture_output=True, text=True, env={"PATH": _PATH})
    return re.findall(r"^Group \d+:.*$", done.stdout, re.MULTILINE)
