"""Local files as tar archives, to and from a guest.

What comes from a guest is not trusted: every name stays below the destination, nothing is written through a symbolic
link, and setuid and setgid bits and owners are taken over on demand only.
"""

import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from ingle.cli.errors import CliError, failed

_CHUNK = 256 * 1024
_PERMISSIONS = 0o7777
_UNTRUSTED = 0o777

Told = Callable[[str, int], None]
"""Is told of each entry: its name and how many bytes of content it has."""


class Sink(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes) -> int:
        """Take all of the data."""


def pack(source: Path, name: str, sink: Sink, told: Told) -> None:
    """Write a file or directory as an archive in which it is called `name`. Sockets are left out.

    Raises CliError for what can't be read."""

    def tell(member: tarfile.TarInfo) -> tarfile.TarInfo:
        told(member.name, member.size)
        return member

    try:
        with tarfile.open(fileobj=cast("IO[bytes]", sink), mode="w|", format=tarfile.PAX_FORMAT) as archive:
            archive.add(source, arcname=name, filter=tell)
    except OSError as error:
        raise failed("INVALID_ARGUMENT", f"{error.filename or source}: {error.strerror}") from error


def unpack(pieces: Iterable[bytes], destination: Path, name: str, told: Told, *, preserve_owners: bool) -> None:
    """Make the one file or directory of an archive in the directory `destination`, called `name`. Files that are there
    are replaced, directories kept. Raises CliError for an archive or a place that will not do."""
    extraction = _Extraction(destination, name, preserve_owners=preserve_owners)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Reader(pieces)), mode="r|") as archive:
            for member in archive:
                told(member.name, member.size)
                extraction.take(archive, member)
            extraction.finish()
    except tarfile.TarError as error:
        raise failed("ARCHIVE_INVALID", f"the guest's archive can't be read: {error}") from error
    except OSError as error:
        raise failed("INVALID_ARGUMENT", f"{error.filename or destination}: {error.strerror}") from error


class _Reader:
    """Pieces of a stream as a readable file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class _Extraction:
    """An archive being taken apart."""

    def __init__(self, destination: Path, name: str, *, preserve_owners: bool) -> None:
        self._destination = destination
        self._name = name
        self._preserve_owners = preserve_owners
        self._sound: set[Path] = {destination}
        self._files: set[Path] = set()
        # They get mode and time when nothing is written into them any more.
        self._directories: list[tuple[Path, tarfile.TarInfo]] = []

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Make one entry."""
        path = self._place(member.name)
        self._require_real_directory(path.parent)
        if member.isdir():
            self._make_directory(path)
            self._directories.append((path, member))
            return
        _clear(path)
        if member.isfile():
            self._write(path, archive, member)
        elif member.islnk():
            target = self._place(member.linkname)
            if target not in self._files:
                raise _hostile(member.name, f"a hard link to {member.linkname}, which is not in it")
            path.hardlink_to(target)
        elif member.issym():
            path.symlink_to(member.linkname)
            self._own(path, member)
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
        elif member.isfifo():
            os.mkfifo(path, member.mode & _UNTRUSTED)
        elif self._preserve_owners and (member.ischr() or member.isblk()):
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(path, kind | member.mode & _UNTRUSTED, os.makedev(member.devmajor, member.devminor))
            self._own(path, member)

    def finish(self) -> None:
        """Modes and times of directories, the deepest first."""
        for path, member in reversed(self._directories):
            self._own(path, member)
            path.chmod(self._mode(member))
            os.utime(path, (member.mtime, member.mtime))

    def _place(self, name: str) -> Path:
        """Where an entry goes. The guest's name of the top is replaced by ours."""
        parts = name.rstrip("/").split("/")
        if not parts[0] or ".." in parts or "\0" in name or any(part in {"", "."} for part in parts[1:]):
            raise _hostile(name, "such a name is not allowed")
        return self._destination.joinpath(self._name, *parts[1:])

    def _require_real_directory(self, directory: Path) -> None:
        if directory in self._sound:
            return
        self._require_real_directory(directory.parent)
        if not stat.S_ISDIR(directory.lstat().st_mode):
            raise _hostile(str(directory), "an entry would be written through what is no directory")
        self._sound.add(directory)

    def _make_directory(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise
        self._sound.add(path)

    def _write(self, path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        content = archive.extractfile(member)
        assert content is not None
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            shutil.copyfileobj(content, file, _CHUNK)
        self._own(path, member)
        path.chmod(self._mode(member))
        os.utime(path, (member.mtime, member.mtime))
        self._files.add(path)

    def _mode(self, member: tarfile.TarInfo) -> int:
        return member.mode & (_PERMISSIONS if self._preserve_owners else _UNTRUSTED)

    def _own(self, path: Path, member: tarfile.TarInfo) -> None:
        if self._preserve_owners:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)


def _clear(path: Path) -> None:
    """Make room; never by removing a directory."""
    if os.path.lexists(path):
        path.unlink()


def _hostile(name: str, why: str) -> CliError:
    return failed("ARCHIVE_INVALID", f"the guest's archive holds {name!r}: {why}")
