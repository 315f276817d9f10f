"""A file system of a test's own that is soon full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILLER = "filler"


@contextmanager
def small_disk(at: Path, size: str, mode: str = "0700") -> Iterator[Path]:
    """Mounted at `at`, which is made. For root."""
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode={mode}", "tmpfs", at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def fill(directory: Path) -> None:
    """Leave not a byte."""
    with (directory / FILLER).open("ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(65536))
    assert os.statvfs(directory).f_bavail == 0


def make_room(directory: Path) -> None:
    """There is space again."""
    (directory / FILLER).unlink()
