"""Files in the place of others: as a whole, or not at all."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ingle.cli.errors import failed

_ARTICLES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@contextmanager
def put_in_place(directory: int, name: str) -> Iterator[str]:
    """A temporary name in an open directory. What is made there gets its own at the end of the context, in the place of
    what was there; at a failure, Ctrl-C too, it is gone, and who looks meanwhile finds what was there."""
    temporary = f".ingle-{os.urandom(8).hex()}"
    try:
        yield temporary
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        # Also when all went well: a rename between two names of the same file leaves both.
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def check_replaceable(directory: int, name: str, kind: int, path: Path) -> bool:
    """Whether anything is in the place of what is to be made. Refuses to replace what is no file: a directory; a
    device, FIFO or socket unless by one of its own kind. `path` is for the message. Raises OSError, CliError."""
    try:
        former = stat.S_IFMT(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
    if former == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if former not in {stat.S_IFREG, stat.S_IFLNK, kind}:
        message = f"{path}: {_ARTICLES.get(former, 'what is there')} is not replaced by a file"
        raise failed("NOT_A_REGULAR_FILE", message, "give another name, or remove it first")
    return True
