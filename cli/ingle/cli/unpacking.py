"""Files out of a guest's tar archive.

What comes from a guest is not trusted: every name stays below the destination, nothing is written through a symbolic
link, setuid and setgid bits, owners and attributes are taken over on demand only, and what describes a file is bounded.
"""

import io
import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from ingle.cli.attributes import write_attributes
from ingle.cli.errors import CliError, failed
from ingle.cli.packing import LeftOut, TarFile, Told

_CHUNK = 256 * 1024
_PERMISSIONS = 0o7777
_UNTRUSTED = 0o777
_LARGEST_DESCRIPTION = 1024 * 1024
"""Bytes of headers, and of a sparse file's map, before the content of one entry."""

_TIME = re.compile(r"(-?)(\d+)(?:\.(\d{1,9}))?\d*")


def unpack(pieces: Iterable[bytes], destination: Path, name: str, told: Told, *, preserve: bool) -> LeftOut:
    """Make the one file or directory of an archive in the directory `destination`, called `name`. Files that are there
    are replaced, directories kept. `preserve`: owners, setuid and setgid bits, attributes, devices; and all that also
    for directories that are there. Raises CliError for an archive or a place that will not do."""
    reader = _Reader(pieces)
    extraction = _Extraction(destination, name, preserve=preserve)
    try:
        reader.allow(_LARGEST_DESCRIPTION)
        with TarFile(
            fileobj=cast("IO[bytes]", reader), mode="r", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()
                told(member.name, member.size)
                reader.allow(None)
                extraction.take(archive, member)
                reader.allow(_LARGEST_DESCRIPTION)
            reader.drain()
            extraction.finish()
    except (tarfile.TarError, OverflowError, ValueError) as error:
        raise failed("ARCHIVE_INVALID", f"the guest's archive can't be read: {error}") from error
    except OSError as error:
        raise _refused(error, destination, preserve=preserve) from error
    return extraction.left_out


class _Reader:
    """Pieces of a stream as a file that can be read forwards. Reading more than is allowed is an error."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._rest = memoryview(b"")
        self._position = 0
        self._allowed: int | None = None

    def allow(self, size: int | None) -> None:
        """From now on so many bytes; None: any number."""
        self._allowed = size

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def seek(self, position: int) -> int:
        if position < self._position:
            raise tarfile.ReadError("it would have to be read backwards")
        while self._position < position and self._fill():
            self._take(position - self._position)
        return self._position

    def read(self, size: int) -> bytes:
        if self._allowed is not None:
            self._allowed -= size
            if self._allowed < 0:
                raise tarfile.ReadError(f"more than {_LARGEST_DESCRIPTION} bytes describe one file")
        taken: list[memoryview] = []
        while size > 0 and self._fill():
            taken.append(self._take(size))
            size -= len(taken[-1])
        return b"".join(taken)

    def drain(self) -> None:
        """Take what is behind the end of the archive."""
        while self._fill():
            self._take(len(self._rest))

    def _fill(self) -> bool:
        while not self._rest and (piece := next(self._pieces, None)) is not None:
            self._rest = memoryview(piece)
        return bool(self._rest)

    def _take(self, size: int) -> memoryview:
        taken, self._rest = self._rest[:size], self._rest[size:]
        self._position += len(taken)
        return taken


class _Extraction:
    """An archive being taken apart."""

    def __init__(self, destination: Path, name: str, *, preserve: bool) -> None:
        self.left_out = LeftOut()
        self._destination = destination
        self._name = name
        self._preserve = preserve
        self._sound: set[Path] = {destination}
        self._files: set[Path] = set()
        # They get mode and time when nothing is written into them any more.
        self._directories: list[tuple[Path, tarfile.TarInfo]] = []

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Make one entry."""
        path = self._place(member.name)
        if path == self._destination:  # what is in a directory goes into one that is there
            return
        self._require_real_directory(path.parent)
        if member.isdir():
            if self._make_directory(path) or self._preserve:
                self._directories.append((path, member))
            return
        if (member.ischr() or member.isblk()) and not self._preserve:
            self.left_out.files.append(str(path))
            return
        _clear(path)
        if member.isreg():
            self._write(path, archive, member)
        elif member.islnk():
            target = self._place(member.linkname)
            if target not in self._files:
                raise _hostile(member.name, f"a hard link to {member.linkname}, which is not in it")
            path.hardlink_to(target)
            self._files.add(path)
        elif member.issym():
            path.symlink_to(member.linkname)
            self._adorn_node(path, member)
        elif member.isfifo():
            os.mkfifo(path, 0o600)
            path.chmod(self._mode(member))
            self._adorn_node(path, member)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))
            path.chmod(self._mode(member))
            self._adorn_node(path, member)
        else:
            raise _hostile(member.name, f"an entry of type {member.type!r}")

    def finish(self) -> None:
        """Modes and times of directories, the deepest first."""
        for path, member in reversed(self._directories):
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                self._adorn(directory, member)
            finally:
                os.close(directory)

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

    def _make_directory(self, path: Path) -> bool:
        made = True
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise
            made = False
        self._sound.add(path)
        return made

    def _write(self, path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        content = archive.extractfile(member)
        assert content is not None
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            sparse = cast("list[tuple[int, int]] | None", getattr(member, "sparse", None))
            try:
                for offset, size in [(0, member.size)] if sparse is None else sparse:
                    content.seek(offset)
                    file.seek(offset)
                    _copy(content, file, size)
                file.truncate(member.size)
            except BaseException:
                path.unlink()  # half a file is worse than none
                raise
            self._adorn(descriptor, member)
        self._files.add(path)

    def _adorn(self, file: int, member: tarfile.TarInfo) -> None:
        """Give an open file what else is known of it; attributes last: a new owner takes capabilities away."""
        if self._preserve:
            os.fchown(file, member.uid, member.gid)
        os.fchmod(file, self._mode(member))
        if self._preserve:
            self.left_out.attributes += write_attributes(file, member.pax_headers)
        os.utime(file, ns=_times(member))

    def _adorn_node(self, path: Path, member: tarfile.TarInfo) -> None:
        if self._preserve:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        os.utime(path, ns=_times(member), follow_symlinks=False)

    def _mode(self, member: tarfile.TarInfo) -> int:
        return member.mode & (_PERMISSIONS if self._preserve else _UNTRUSTED)


def _copy(source: IO[bytes], target: io.FileIO, size: int) -> None:
    while size > 0:
        piece = source.read(min(size, _CHUNK))
        if not piece:
            raise tarfile.ReadError("it ends in the middle of a file")
        size -= len(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[target.write(rest) :]


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Access and modification, in nanoseconds; tarfile's own number of them is a float."""
    exact = _TIME.fullmatch(member.pax_headers.get("mtime", ""))
    if exact is None:
        nanoseconds = int(member.mtime) * 10**9
    else:
        sign, seconds, fraction = exact.groups()
        nanoseconds = (int(seconds) * 10**9 + int((fraction or "").ljust(9, "0"))) * (-1 if sign else 1)
    return nanoseconds, nanoseconds


def _clear(path: Path) -> None:
    """Make room; never by removing a directory."""
    if os.path.lexists(path):
        path.unlink()


def _hostile(name: str, why: str) -> CliError:
    return failed("ARCHIVE_INVALID", f"the guest's archive holds {name!r}: {why}")


def _refused(error: OSError, destination: Path, *, preserve: bool) -> CliError:
    remedy = "sudo, or leave --archive out" if preserve and isinstance(error, PermissionError) else ""
    return failed("INVALID_ARGUMENT", f"{error.filename or destination}: {error.strerror}", remedy)
