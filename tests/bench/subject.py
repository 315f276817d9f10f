"""What is measured, whoever does it: bare system calls, the agent through the host's client, or the whole of ingle.

Each method does one thing once and answers how many seconds it took, not counting what had to be set up for it.
"""

from typing import Protocol

FIRST_WORD = ("sh", "-c", "echo word; exec sleep 60")
SMALL_FILE = bytes(range(256)) * 4
CHUNK = 256 * 1024
"""Bytes handed over at a time."""


class Subject(Protocol):
    """One way to do things."""

    def run(self) -> float:
        """`true`, from asking for it to knowing how it ended."""

    def first_byte(self) -> float:
        """The first output of a command that goes on."""

    def at_once(self, count: int) -> float:
        """So many `true` at the same time, until the last one has ended."""

    def small_file(self) -> float:
        """A kilobyte written, to the disk, and read again."""

    def write(self, size: int) -> float:
        """So many bytes into a file."""

    def read(self, size: int) -> float:
        """What `write` wrote."""

    def copy_in(self, archive: bytes) -> float:
        """A tar archive unpacked in a new directory."""

    def copy_out(self) -> float:
        """What `copy_in` unpacked, as an archive again."""

    def attach(self) -> float:
        """Looking at a session that is there."""
