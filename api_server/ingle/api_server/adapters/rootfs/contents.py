"""What goes into an image, found out before anything is unpacked: how much it is, and what only the archive knows."""

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ingle.api_server.adapters.rootfs.problem import bad

_BLOCK = 4096
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
    inodes = blocks = regular = 0
    xattrs: list[Xattr] = []
    ways_out: set[PurePosixPath] = set()
    try:
        with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                _check_names(member, ways_out)
                inodes += not member.islnk()
                blocks += _blocks(member.size) if member.isreg() else 1
                regular += member.isreg()
                xattrs += _xattrs(member)
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


def of_directory(root: Path) -> Contents:
    """Walk a directory, without following symlinks.

    Raises BadFile(IMAGE_INVALID): unreadable, without a single file, or with something mounted inside."""
    device = root.lstat().st_dev
    seen: set[int] = set()
    blocks = regular = 0
    for path, info in _walk(root):
        if info.st_dev != device:
            raise bad(f"something is mounted at {path}", f"sudo umount {path}")
        if stat.S_ISREG(info.st_mode):
            regular += 1
            if not os.access(path, os.R_OK):
                raise bad(f"{path} is not readable for this user")
        if info.st_ino not in seen:
            seen.add(info.st_ino)
            blocks += _blocks(info.st_size) if stat.S_ISREG(info.st_mode) else 1
    if regular == 0:
        raise bad(f"the directory {root} holds no files")
    return Contents(len(seen), blocks)


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    pending = [str(root)]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    yield entry.path, info
                    if stat.S_ISDIR(info.st_mode):
                        pending.append(entry.path)
        except OSError as error:
            raise bad(f"{directory}: {error.strerror}") from error


def _check_names(member: tarfile.TarInfo, ways_out: set[PurePosixPath]) -> None:
    """Refuse names that lead out of the root, by themselves or through a symlink (`ways_out`: those seen so far)."""
    for name in (member.name, member.linkname) if member.islnk() else (member.name,):
        path = PurePosixPath(name)
        if _leads_out(path):
            raise bad(f"the archive has the name {name!r}; names must be relative and without '..'")
        if not ways_out.isdisjoint(path.parents):
            raise bad(f"the archive's {name!r} is behind a symlink that leads out of it")
    if member.issym() and _leads_out(PurePosixPath(member.linkname)):
        ways_out.add(PurePosixPath(member.name))


def _leads_out(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts


def _xattrs(member: tarfile.TarInfo) -> Iterator[Xattr]:
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR):
            path = PurePosixPath(member.name).as_posix()
            # tarfile decodes pax records as UTF-8 and escapes what isn't.
            yield Xattr(path, key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))


def _blocks(size: int) -> int:
    return -(-size // _BLOCK)
