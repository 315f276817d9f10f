"""Space that is kept back, so that on a full disk there is some for what makes room: stopping, deleting, pruning."""

import os
from contextlib import suppress
from pathlib import Path

_SIZE = 6 * 1024 * 1024  # more than the database's log: a server that starts on a full disk takes that of it at once
_LITTLE = 1024 * 1024
_PLENTY = 4 * _SIZE


class Reserve:
    """A file in `directory`, given up when that is full, and made again when there is room."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "reserve"
        self._there = self._path.exists()

    def tend(self) -> bool:
        """Do what there is to do: cheap enough to be done before every write. Answers as give_up does."""
        found = os.statvfs(self._path.parent)
        free = found.f_bavail * found.f_frsize
        if free < _LITTLE:
            return self.give_up()
        if not self._there and free > _PLENTY:
            self._there = allocate(self._path, _SIZE)
        return False

    def give_up(self) -> bool:
        """There is less space than the file system told, or none at all: a quota, say. Answers whether there is more
        now, for who takes it first."""
        given, self._there = self._there, False
        if given:
            self._path.unlink(missing_ok=True)
        return given


def allocate(path: Path, size: int) -> bool:
    """Whether the file has room for `size` bytes now, without needing more space than it has. What it holds stays."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
        return True
    return False
