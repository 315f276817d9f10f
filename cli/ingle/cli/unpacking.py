"""Files out of a guest's tar archive.

What comes from a guest is not trusted: every name stays below the destination, nothing is written through a symbolic
link that came with the archive or leads out of the destination, setuid and setgid bits, owners and attributes are taken
over on demand only, and what describes a file is bounded. Directories are held open and names looked up in them, so
that nobody else leads us astray either.
"""

import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Never

from ingle.cli.archive import Archive, ArchiveError, Entry
from ingle.cli.attributes import write_attributes
from ingle.cli.errors import CliError, failed
from ingle.cli.packing import LeftOut, Told
from ingle.cli.replacing import check_replaceable, put_in_place

_UNTRUSTED = 0o777
_MOST_REMEMBERED = 256 * 1024 * 1024
"""Bytes, roughly, that are kept in mind of one archive: directories to be finished, files and links it has made."""

_ITEM = 250
"""Bytes of anything small that is kept in mind."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


class _Unfinished(NamedTuple):
    """A directory that gets its mode and time when nothing is written into it any more."""

    parts: tuple[str, ...]
    entry: Entry


def unpack(pieces: Iterable[bytes], destination: Path, name: str, told: Told, *, preserve: bool) -> LeftOut:
    """Make the one file or directory of an archive in the directory `destination`, called `name`. Files that are there
    are replaced, each as a whole or not at all, and directories kept, also behind links that stay in the destination.
    `preserve`: owners, setuid and setgid bits, attributes, devices; and all that also for directories that are there.
    Raises CliError for an archive or a place that will not do."""
    archive = Archive(pieces)
    try:
        root = os.open(destination, os.O_PATH | os.O_DIRECTORY)
        try:
            extraction = _Extraction(destination, root, name, preserve=preserve)
            for entry in archive.entries():
                told(entry.name, entry.size)
                extraction.take(archive, entry)
            extraction.finish()
        finally:
            os.close(root)
    except (ArchiveError, OverflowError, ValueError) as error:
        raise failed("ARCHIVE_INVALID", f"the guest's archive can't be read: {error}") from error
    except OSError as error:
        raise _refused(error, destination, preserve=preserve) from error
    return extraction.left_out


class _Extraction:
    """An archive being taken apart."""

    def __init__(self, destination: Path, root: int, name: str, *, preserve: bool) -> None:
        self.left_out = LeftOut()
        self._destination = destination
        self._root = root
        self._name = name
        self._preserve = preserve
        self._remembered = 0
        # What this archive has made, as device and inode: to link to, and not to follow.
        self._files: set[tuple[int, int]] = set()
        self._links: set[tuple[int, int]] = set()
        self._unfinished: list[_Unfinished] = []

    def take(self, archive: Archive, entry: Entry) -> None:
        """Make one entry."""
        parts = self._parts(entry.name)
        if not parts:  # what is in a directory goes into one that is there
            return
        path = self._destination.joinpath(*parts)
        if entry.type in {stat.S_IFCHR, stat.S_IFBLK} and not self._preserve:
            self.left_out.files.append(str(path))
            self._remember(_ITEM + len(entry.name))
            return
        with _about(path), self._opened(parts[:-1]) as parent:
            if entry.type == stat.S_IFDIR:
                self._make_directory(parent, parts, entry)
                return
            replaces = check_replaceable(parent, parts[-1], entry.type or stat.S_IFREG, path)
            with put_in_place(parent, parts[-1]) as temporary:
                match entry.type:
                    case stat.S_IFREG:
                        self._write(parent, temporary, archive, entry, sync=replaces)
                    case 0:
                        self._link(parent, temporary, entry)
                    case _:
                        self._make_node(parent, temporary, entry)

    def finish(self) -> None:
        """Modes and times of directories, the deepest first."""
        for parts, entry in reversed(self._unfinished):
            with _about(self._destination.joinpath(*parts)), self._opened(parts) as found:
                directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=found)
                try:
                    self._adorn(directory, entry)
                finally:
                    os.close(directory)

    def _parts(self, name: str) -> tuple[str, ...]:
        """Where an entry goes. The guest's name of the top is replaced by ours."""
        parts = name.rstrip("/").split("/")
        if not parts[0] or ".." in parts or any(part in {"", "."} for part in parts[1:]):
            raise _hostile(name, "such a name is not allowed")
        return (*((self._name,) if self._name else ()), *parts[1:])

    @contextmanager
    def _opened(self, parts: tuple[str, ...]) -> Iterator[int]:
        """A directory below the destination."""
        directory = self._open(parts, self._follow)
        try:
            yield directory
        finally:
            os.close(directory)

    def _open(self, parts: Iterable[str], otherwise: Callable[[int, str], int]) -> int:
        """Go down, never through a link; `otherwise` opens what is no directory itself."""
        directory = os.dup(self._root)
        try:
            for part in parts:
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=directory)
                except NotADirectoryError:
                    below = otherwise(directory, part)
                os.close(directory)
                directory = below
        except BaseException:
            os.close(directory)
            raise
        return directory

    def _follow(self, parent: int, name: str) -> int:
        """The directory that a link leads to, if that was there before us and stays in the destination."""
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            _refuse_way(parent, name)
        if (found.st_dev, found.st_ino) in self._links:
            raise _hostile(name, "an entry would be written through a link of its own")
        top = os.path.realpath(f"/proc/self/fd/{self._root}")
        target = os.path.realpath(f"/proc/self/fd/{parent}/{name}")
        if os.path.commonpath((top, target)) != top:
            message = f"{name} is a symbolic link that leads out of {self._destination}, and is not followed"
            raise failed("SYMLINK_REFUSED", message, f"copy into {target} by a command of its own")
        return self._open(Path(target).relative_to(top).parts, _refuse_way)

    def _make_directory(self, parent: int, parts: tuple[str, ...], entry: Entry) -> None:
        made = True
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            made = False
            with self._opened(parts):  # or it is none
                pass
        if made or self._preserve:
            self._remember(_ITEM * len(parts) + _size(entry.records))
            self._unfinished.append(_Unfinished(parts, entry))

    def _write(self, parent: int, name: str, archive: Archive, entry: Entry, *, sync: bool) -> None:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
        with open(descriptor, "wb", buffering=0) as file:
            for offset, size in entry.segments:
                file.seek(offset)
                for piece in archive.content(size):
                    _write_all(file, piece)
            file.truncate(entry.size)
            self._adorn(descriptor, entry)
            if sync:  # or a crash of this machine may leave neither the old content nor the new
                os.fsync(descriptor)
            made = os.fstat(descriptor)
        self._remember(_ITEM)
        self._files.add((made.st_dev, made.st_ino))

    def _link(self, parent: int, name: str, entry: Entry) -> None:
        target = self._parts(entry.link)
        if not target:
            raise _hostile(entry.name, f"a hard link to {entry.link}")
        with self._opened(target[:-1]) as directory:
            os.link(target[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        made = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if (made.st_dev, made.st_ino) not in self._files:
            raise _hostile(entry.name, f"a hard link to {entry.link}, which is not in it")

    def _make_node(self, parent: int, name: str, entry: Entry) -> None:
        """What has no content."""
        if entry.type == stat.S_IFLNK:
            os.symlink(entry.link, name, dir_fd=parent)
            made = os.stat(name, dir_fd=parent, follow_symlinks=False)
            self._remember(_ITEM)
            self._links.add((made.st_dev, made.st_ino))
        else:
            os.mknod(name, entry.type | 0o600, os.makedev(*entry.device), dir_fd=parent)
            os.chmod(name, self._mode(entry), dir_fd=parent)
        if self._preserve:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=_times(entry), dir_fd=parent, follow_symlinks=False)

    def _adorn(self, file: int, entry: Entry) -> None:
        """Give an open file what else is known of it; attributes last: a new owner takes capabilities away."""
        if self._preserve:
            os.fchown(file, entry.uid, entry.gid)
        os.fchmod(file, self._mode(entry))
        if self._preserve:
            self.left_out.attributes += write_attributes(file, entry.records)
        os.utime(file, ns=_times(entry))

    def _mode(self, entry: Entry) -> int:
        return entry.mode if self._preserve else entry.mode & _UNTRUSTED

    def _remember(self, size: int) -> None:
        self._remembered += size
        if self._remembered > _MOST_REMEMBERED:
            raise failed(
                "ARCHIVE_INVALID",
                "the guest's archive has too many files to keep in mind",
                "copy parts of it, one by one",
            )


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Has an error of the system name the whole path, where a call knew the last component only."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_all(file: io.FileIO, piece: memoryview) -> None:
    while piece:
        piece = piece[file.write(piece) :]


def _times(entry: Entry) -> tuple[int, int]:
    return entry.modified_nanoseconds, entry.modified_nanoseconds


def _size(records: Mapping[str, str]) -> int:
    return sum(_ITEM + len(key) + len(value) for key, value in records.items())


def _refuse_way(_parent: object, name: str) -> Never:
    raise failed("NOT_A_DIRECTORY", f"{name} is no directory, and nothing is written through it")


def _hostile(name: str, why: str) -> CliError:
    return failed("ARCHIVE_INVALID", f"the guest's archive holds {name!r}: {why}")


def _refused(error: OSError, destination: Path, *, preserve: bool) -> CliError:
    remedy = "sudo, or leave --archive out" if preserve and isinstance(error, PermissionError) else ""
    return failed("INVALID_ARGUMENT", f"{error.filename or destination}: {error.strerror}", remedy)
