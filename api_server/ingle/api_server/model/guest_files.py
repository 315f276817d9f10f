"""Files in guests: what can be asked about them, and what is answered."""

from dataclasses import dataclass
from enum import Enum

LARGEST_PAGE = 10_000
"""Entries of a listing at once."""


class FileType(Enum):
    """Numbers as in `ingle.v1.FileType` and `ingle.agent.v1.FileType`."""

    REGULAR = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7


@dataclass(frozen=True, slots=True)
class FileInfo:
    """As lstat(2) has it. `mode`: the lower 12 bits. `name`: the last component. Where it or a link's target isn't
    UTF-8, it has U+FFFD, and `raw_name` or `raw_link_target` is what it really is."""

    name: str
    type: FileType
    mode: int
    uid: int
    gid: int
    size_bytes: int
    modified_nanoseconds: int
    link_target: str
    links: int
    raw_name: bytes = b""
    raw_link_target: bytes = b""


@dataclass(frozen=True, slots=True)
class ReadSpec:
    """Which part of a file: from `offset`, until `max_bytes` or `max_lines` (0: no limit), whichever comes first."""

    path: str
    offset: int = 0
    max_bytes: int = 0
    max_lines: int = 0
    user: str = ""


@dataclass(frozen=True, slots=True)
class ReadEnd:
    """After the content. `truncated`: there was more than the limits allow; `next_offset` is where it begins."""

    file: FileInfo
    truncated: bool
    next_offset: int


@dataclass(frozen=True, slots=True)
class WriteSpec:
    """Where content goes. `mode` None and `owner` empty: those of a replaced file; of a new one 0644 and the user."""

    path: str
    mode: int | None = None
    owner: str = ""
    parents: bool = False
    append: bool = False
    user: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a directory, sorted. `truncated`: there are more entries behind the last one, from `next_after` on."""

    entries: tuple[FileInfo, ...]
    truncated: bool
    next_after: str


@dataclass(frozen=True, slots=True)
class Copied:
    """What a tar archive held. `bytes`: of file content; `attributes_left_out`: extended ones that had no place."""

    entries: int
    bytes: int
    attributes_left_out: int = 0
