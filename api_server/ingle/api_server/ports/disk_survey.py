"""How much room files take."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Measure:
    """Of a file, or of all below a directory, in bytes. What is not there takes nothing."""

    apparent: int = 0
    allocated: int = 0
    shared: int = 0
    """How much of what is allocated it has in common with other files; of a lone file only, a directory says 0."""

    files: int = 0

    def __add__(self, other: "Measure") -> "Measure":
        return Measure(
            self.apparent + other.apparent,
            self.allocated + other.allocated,
            self.shared + other.shared,
            self.files + other.files,
        )

    def without(self, part: "Measure") -> "Measure":
        """What is left, where the two were measured one after the other: never less than nothing."""
        return Measure(
            max(0, self.apparent - part.apparent),
            max(0, self.allocated - part.allocated),
            max(0, self.shared - part.shared),
            max(0, self.files - part.files),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """A file system's."""

    device: int
    """Which one it is."""
    size_bytes: int
    free_bytes: int
    """For us."""


@dataclass(frozen=True, slots=True)
class Survey:
    """`whole` False: there were more files than are looked at."""

    measures: Mapping[Path, Measure]
    whole: bool


class DiskSurvey(Protocol):
    """Looks at files."""

    async def measure(self, paths: Sequence[Path], *, unopened: Collection[Path] = ()) -> Survey:
        """Each of them, a bounded number of files in all, however deep: in a thread, and one survey at a time. What
        those share with others is not told that are `unopened`: closing any descriptor of a file takes all locks of
        this process off it, fcntl(2), and with them a database's."""

    async def taken(self, files: Sequence[Path]) -> Mapping[Path, int]:
        """What each of these really takes, in bytes, at once; nothing when it is not there."""

    def room(self, path: Path) -> Room:
        """Of the file system of a directory."""
