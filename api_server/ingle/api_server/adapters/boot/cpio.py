"""Writing cpio archives in the "newc" format, the one that Linux unpacks into its initramfs.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. The same entries always make the same
bytes: no times, no owners but root, inode numbers in order.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_ALIGNMENT = 4

# Linux looks for the next archive at any multiple of 4; cpio pads to its block size, and other readers expect that.
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory or device. `name` has no leading slash; `mode` includes the type: stat.S_IFREG | 0o644."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(name, stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name, stat.S_IFREG | mode, data)


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device."""
    return Entry(name, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """A whole archive, of a length to which another can be appended. Parents must come before what they hold."""
    parts = [_packed(number, entry) for number, entry in enumerate(entries, start=1)]
    parts.append(_packed(0, Entry(_TRAILER, 0)))
    return _padded(b"".join(parts), _BLOCK)


def _packed(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    # inode, mode, uid, gid, links, mtime, size, device of the file system, device, length of the name, checksum
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, major, minor, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name, _ALIGNMENT) + _padded(entry.data, _ALIGNMENT)


def _padded(data: bytes, alignment: int) -> bytes:
    return data + bytes(-len(data) % alignment)
