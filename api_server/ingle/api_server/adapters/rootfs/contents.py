"""What goes into an image, found out before anything is unpacked: how much it is, and what only the archive knows."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ingle.api_server.adapters.rootfs.problem import bad

_BLOCK = 4096
_LONGEST_NAME = 4096  # PATH_MAX
_LONGEST_XATTR_NAME = 255  # XATTR_NAME_MAX of linux/limits.h
_DEEPEST = 256  # what is unpacked is also removed again, and by functions that call themselves
_MOST_INODES = 1 << 30
_MOST_BLOCKS = (16 << 40) // _BLOCK
_MOST_XATTRS = _MOST_WAYS_OUT = 100_000
_MOST_XATTR_BYTES = 64 << 20  # with the names of their files: all this is in memory at once
_XATTR = "SCHILY.xattr."  # the prefix of pax records that GNU tar, bsdtar and Docker put extended attributes in


@dataclass(frozen=True, slots=True)
class Xattr:
    """An extended attribute; `path` is relative to the root, without a leading './'."""

    path: str
    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """Inodes and 4 KiB blocks that the files and directories take, and the extended attributes they shall have."""

    inodes: int
    blocks: int
    xattrs: tuple[Xattr, ...] = ()


def of_archive(archive: Path) -> Contents:
    """Read an uncompressed tar archive through.

    Raises BadFile(IMAGE_INVALID): not an archive, truncated, without a single file, or with a name that leads out of
    the root."""
    inodes = blocks = regular = xattr_bytes = 0
    xattrs: list[Xattr] = []
    ways_out = _WaysOut()
    try:
        with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                _check_names(member, ways_out)
                inodes += not member.islnk()
                blocks += _blocks(member.size) if member.isreg() else 1
                regular += member.isreg()
                for xattr in _xattrs(member):
                    xattrs.append(xattr)
                    xattr_bytes += len(xattr.path) + len(xattr.name) + len(xattr.value)
                _check_bounds(inodes, blocks, len(xattrs), xattr_bytes, ways_out)
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them in memory
            # tarfile takes whatever is no header for the end of the archive; the end is a block of zeros.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise bad("the archive is truncated or corrupt")
    except tarfile.ReadError as error:
        if inodes == 0:
            raise bad("it is neither a tar archive nor an ext4 image nor a directory") from error
        raise bad(f"the archive is truncated or corrupt: {error}") from error
    except (tarfile.TarError, UnicodeError, ValueError, OverflowError) as error:
        raise bad(f"the archive is corrupt: {error}") from error
    if regular == 0:
        raise bad("the archive holds no files")
    return Contents(inodes, blocks, tuple(xattrs))


class _WaysOut:
    """Symlinks that lead out of the root, as a tree of the parts of their names: a look takes as long as a name has
    parts, however many links there are."""

    def __init__(self) -> None:
        self.count = 0
        self._root: dict[str, Any] = {}

    def add(self, path: PurePosixPath) -> None:
        """What is behind `path` is somewhere else."""
        node = self._root
        for part in path.parts:
            node = node.setdefault(part, {})
        self.count += "" not in node
        node[""] = {}

    def behind(self, path: PurePosixPath) -> bool:
        """Whether one of the directories on the way to `path` is such a link."""
        node = self._root
        for part in path.parts[:-1]:
            if part not in node:
                return False
            node = node[part]
            if "" in node:
                return True
        return False


def _check_names(member: tarfile.TarInfo, ways_out: _WaysOut) -> None:
    """Refuse names that lead out of the root, by themselves or through a symlink (`ways_out`: those seen so far), and
    those that no file has."""
    for name in (member.name, member.linkname) if member.islnk() else (member.name,):
        if len(name) > _LONGEST_NAME:
            raise bad(f"the archive has a name of {len(name)} characters; {_LONGEST_NAME} are allowed")
        path = PurePosixPath(name)
        if len(path.parts) > _DEEPEST:
            raise bad(f"the archive has a name of {len(path.parts)} parts; {_DEEPEST} are allowed")
        if _leads_out(path):
            raise bad(f"the archive has the name {name!r}; names must be relative and without '..'")
        if ways_out.behind(path):
            raise bad(f"the archive's {name!r} is behind a symlink that leads out of it")
    if member.issym() and (len(member.linkname) > _LONGEST_NAME or _leads_out(PurePosixPath(member.linkname))):
        ways_out.add(PurePosixPath(member.name))


def _check_bounds(inodes: int, blocks: int, xattrs: int, xattr_bytes: int, ways_out: _WaysOut) -> None:
    if inodes > _MOST_INODES or blocks > _MOST_BLOCKS:
        raise bad("the archive holds more than an ext4 file system of 16 TiB")
    if xattrs > _MOST_XATTRS or ways_out.count > _MOST_WAYS_OUT:
        raise bad(f"the archive has more than {_MOST_XATTRS} extended attributes, or links that lead out of it")
    if xattr_bytes > _MOST_XATTR_BYTES:
        raise bad(f"the archive's extended attributes have more than {_MOST_XATTR_BYTES >> 20} MiB")


def _leads_out(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts


def _xattrs(member: tarfile.TarInfo) -> Iterator[Xattr]:
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR):
            name = key.removeprefix(_XATTR)
            if len(name.encode("utf-8", "surrogateescape")) > _LONGEST_XATTR_NAME or not name.isprintable():
                raise bad(f"the archive has an extended attribute {name[:100]!r}, which no file can have")
            path = PurePosixPath(member.name).as_posix()
            # tarfile decodes pax records as UTF-8 and escapes what isn't.
            yield Xattr(path, name, value.encode("utf-8", "surrogateescape"))


def _blocks(size: int) -> int:
    return -(-size // _BLOCK)
