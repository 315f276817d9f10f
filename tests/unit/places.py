"""File systems to try disks on."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20

PLACES = ["here", *(["btrfs"] if os.getuid() == 0 and shutil.which("mkfs.btrfs") else [])]
"""Whatever temporary files are on; and for root, who can mount it, a file system that surely shares blocks."""


@contextmanager
def place_on(kind: str, directory: Path) -> Iterator[Path]:
    """A directory below `directory`, on one of PLACES."""
    path = directory / "place"
    path.mkdir()
    if kind == "here":
        yield path
        return
    device = directory / "btrfs.img"
    device.touch()
    os.truncate(device, 128 * MIB)
    subprocess.run(["mkfs.btrfs", "-q", device], check=True)
    subprocess.run(["mount", "-o", "loop", device, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
