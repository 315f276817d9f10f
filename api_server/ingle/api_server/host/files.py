"""The one way to do each thing with files: write atomically, copy with holes, reflink, remove, hash, measure.

All of it blocks: on the event loop, use threads.in_thread.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from ingle.api_server.host.threads import Stop
from ingle.api_server.model.errors import HostProblem, Reason

# _IOW(0x94, 9, int), from linux/fs.h; ioctl_ficlone(2).
_FICLONE = 0x40049409

# linux/falloc.h
_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02

_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR})
"""What open(2) says of links, of a FIFO and a socket without another end, and of a directory."""

CANNOT_REFLINK = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})
"""What FICLONE says where it can't be done, or not between these two."""

_PIECE = 1 << 20
_DIGESTED = 64 * 1024
_ZEROS = bytes(_DIGESTED)
_BLOCK = 512  # the unit of st_blocks, whatever the file system; see inode(7)


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Make `path` hold `data`: old or new content is there at any instant, never half, also after a power cut.

    The mode is right from birth. A failure leaves the old file and nothing else.

    Raises HostProblem(DISK_FULL), OSError."""
    with disk_full_reported(path.parent):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Make a directory and all regular files and directories below it durable."""
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if path.is_symlink() or not path.is_file():
                continue
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(directory))


def sha256(path: Path, stop: Stop | None = None) -> str:
    """The SHA-256 of a file's content, in hex. It takes as long as the file is, holes too, or until `stop`."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_PIECE):
            digest.update(data)
            if stop is not None:
                stop.check()
    return digest.hexdigest()


def content_digest(path: Path, stop: Stop | None = None) -> str:
    """A SHA-256 of what a file holds, in hex, whatever of its zeros are holes: of the size, then of each block of
    64 KiB that is not all zeros, behind its number; numbers are 8 bytes, big-endian. It takes as long as there is data.

    Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(size.to_bytes(8, "big"))
        at = 0
        for start, end in data_ranges(file.fileno(), size):
            at = max(at, start // _DIGESTED * _DIGESTED)
            while at < end:
                if stop is not None:
                    stop.check()
                data = os.pread(file.fileno(), _PIECE, at)
                if not data:
                    raise OSError(errno.EIO, "it became shorter meanwhile", str(path))
                for offset in range(0, len(data), _DIGESTED):
                    block = data[offset : offset + _DIGESTED]
                    if block != _ZEROS[: len(block)]:
                        digest.update(((at + offset) // _DIGESTED).to_bytes(8, "big"))
                        digest.update(block)
                at += len(data)
    return digest.hexdigest()


def copy_sparse(source: Path, target: Path, mode: int = 0o600) -> None:
    """Copy a file's content into a new file, holes as holes. A failure leaves no file.

    Raises FileExistsError, HostProblem(DISK_FULL), OSError."""
    with open(source, "rb") as reader, new_file(target, mode) as writer:
        size = os.fstat(reader.fileno()).st_size
        os.ftruncate(writer, size)
        for start, end in data_ranges(reader.fileno(), size):
            copy_range(reader.fileno(), writer, start, end, start)


def append_file(source: int, target: int) -> None:
    """Copy a whole file to where another, open for writing, is positioned; both are descriptors. Raises OSError."""
    copy_range(source, target, 0, os.fstat(source).st_size, os.lseek(target, 0, os.SEEK_CUR))


def reflink(source: Path, target: Path, mode: int = 0o600) -> None:
    """Make a new file that shares all its blocks with `source` until one of them is written. A failure leaves no file.

    Raises FileExistsError, HostProblem(DISK_FULL), and OSError: EOPNOTSUPP or EINVAL where the file system can't,
    EXDEV across file systems."""
    with open(source, "rb") as reader, new_file(target, mode) as writer:
        fcntl.ioctl(writer, _FICLONE, reader.fileno())


def duplicate(source: Path, target: Path, mode: int = 0o600) -> None:
    """Make a new file of the same content, which shares its blocks where the file system can. A failure leaves no file.

    Raises FileExistsError, HostProblem(DISK_FULL), OSError."""
    try:
        reflink(source, target, mode)
    except OSError as error:
        if error.errno not in CANNOT_REFLINK:
            raise
        copy_sparse(source, target, mode)


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """From where to where an open file of that size has no hole; see lseek(2)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole to the end
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[int]:
    """A descriptor of a file that didn't exist; when the block fails, it doesn't again. Raises FileExistsError."""
    with disk_full_reported(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            yield descriptor
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


def punch_zeros(stop: Stop, path: Path) -> None:
    """Make holes of a file's zeros, in blocks of 64 KiB, where its file system has holes. Raises OSError."""
    with open(path, "rb+", buffering=0) as file:
        for start, end in [*data_ranges(file.fileno(), os.fstat(file.fileno()).st_size)]:
            begins = at = -(-start // _DIGESTED) * _DIGESTED  # zeros that were read begin, and end
            while at + _DIGESTED <= end:
                stop.check()
                zero = os.pread(file.fileno(), _DIGESTED, at) == _ZEROS
                if not zero and begins < at and not _punched(file.fileno(), begins, at):
                    return
                at += _DIGESTED
                begins = begins if zero else at
            if begins < at and not _punched(file.fileno(), begins, at):
                return


def _punched(descriptor: int, start: int, end: int) -> bool:
    """Whether it could be done here."""
    try:
        punch_hole(descriptor, end, start)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    return True


def write_zeros(descriptor: int, start: int, end: int) -> None:
    """Have nothing but zeros there, in whole blocks, as a hole where the file system has holes. Raises OSError."""
    if _punched(descriptor, start, end):
        return
    while start < end:
        start += os.pwrite(descriptor, _ZEROS[: end - start], start)


def punch_hole(descriptor: int, end: int, start: int = 0) -> None:
    """Give back the blocks from `start` on and before `end` (whole ones); the size and all offsets stay.

    FALLOC_FL_PUNCH_HOLE needs FALLOC_FL_KEEP_SIZE, see fallocate(2). Python's os has neither. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(end - start)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def remove_tree(path: Path) -> None:
    """Delete a file, or a directory with all that is in it; what is gone already, also while we work, is fine.

    Directories without write permission, as unpacked archives have, are made writable first. Never follows symlinks.
    What is below may be deeper than a path can be long, as names in an archive are relative to where they go."""
    if path.is_dir() and not path.is_symlink():
        _make_writable(path)
        for _, names, _, descriptor in os.fwalk(path):
            for name in names:
                _make_writable(name, descriptor)
        shutil.rmtree(path, onerror=_ignore_missing)
    else:
        path.unlink(missing_ok=True)


def allocated_bytes(path: Path) -> int:
    """How much of the disk a file really takes. Raises OSError."""
    return path.stat().st_blocks * _BLOCK


def free_bytes(path: Path) -> int:
    """How much an ordinary user may still write to the file system of `path`."""
    return shutil.disk_usage(path).free


@contextmanager
def disk_full_reported(directory: Path) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into HostProblem(DISK_FULL) that says where."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = mount_point(directory)
        raise HostProblem(Reason.DISK_FULL, f"no space left on the file system at {where}", f"df -h {where}") from error


def mount_point(path: Path) -> Path:
    """What a person can look at when `path`, which an operation made for itself, is gone."""
    path = path.absolute()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def _make_writable(directory: Path | str, parent: int | None = None) -> None:
    """Let the owner of a directory do anything in it; before it is walked, or nobody would see what is inside."""
    with suppress(FileNotFoundError):
        mode = os.lstat(directory, dir_fd=parent).st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(directory, stat.S_IRWXU, dir_fd=parent)


def _ignore_missing(function: object, path: str, error: tuple[object, BaseException, object]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def copy_range(source: int, target: int, start: int, end: int, to: int) -> None:
    """Copy part of a file to an offset of another, both descriptors. Raises OSError."""
    # Not copy_file_range, which can't cross file systems of different kinds.
    os.lseek(target, to, os.SEEK_SET)
    while start < end:
        copied = os.sendfile(target, source, start, end - start)
        if copied == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += copied


def open_log(path: Path, mode: str) -> BinaryIO:
    """Open a log, whatever may have been put in its place: nothing is waited for, and no link followed.

    Raises OSError, HostProblem(NOT_A_REGULAR_FILE)."""
    return cast("BinaryIO", open(path, mode, opener=_log_opener))


def _log_opener(path: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _no_log(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_log(path)
    return descriptor


def _no_log(path: str) -> HostProblem:
    return HostProblem(Reason.NOT_A_REGULAR_FILE, f"{path} is no regular file, as a log must be", f"remove {path}")
