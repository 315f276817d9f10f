"""A VM's copy-on-write file, taken from the API server's user for as long as the kernel reads what it begins with.

The kernel believes the file's header more than the table that the helper gives it: a chunk as large as the header says
is allocated, several times, and stays. So the header is looked at in a file that nobody can change any more: it is
root's, and no other process has it open from before.
"""

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ingle.host_helper.errors import InUse, InvalidRequest, KernelRefused

# struct disk_header of the kernel's drivers/md/dm-snap-persistent.c: magic, valid, version, chunk size in sectors.
HEADER = struct.Struct("<4I")
MAGIC = 0x70416E53
VERSION = 1
CHUNK_SECTORS = 8

_NOBODY_ELSES = 0o600
_TRIES, _PAUSE_SECONDS = 20, 0.05  # a process that is being forked has it open for a moment


def is_ours(status: os.stat_result, uid: int, gid: int) -> bool:
    """Whether it is the API server's, or root's as only `taken` leaves one: when it was killed."""
    return status.st_uid == uid or (status.st_uid == 0 and status.st_gid == gid)


def check(what: str, file: int, size: int) -> None:
    """Raise InvalidRequest unless it is one for a disk of `size` bytes: new, or written to with the table's chunks."""
    magic, _, version, chunk = HEADER.unpack(os.pread(file, HEADER.size, 0).ljust(HEADER.size, b"\0"))
    if magic != 0 and (magic, version, chunk) != (MAGIC, VERSION, CHUNK_SECTORS):
        raise InvalidRequest(
            f"{what} begins with {magic:#x}, version {version}, chunks of {chunk} sectors; a new one is allowed, and "
            f"{MAGIC:#x}, version {VERSION}, chunks of {CHUNK_SECTORS}"
        )
    # The kernel remembers each chunk that the file tells of.
    if (has := os.fstat(file).st_size) > (most := 2 * size + (64 << 20)):
        raise InvalidRequest(f"{what} has {has} bytes; a disk of {size} bytes has changes of at most {most}")


@contextmanager
def taken(what: str, file: int, uid: int, gid: int) -> Iterator[None]:
    """The file, open for writing, is root's and nobody else has it open. Raises InUse, KernelRefused."""
    os.fchown(file, 0, gid)
    try:
        os.fchmod(file, _NOBODY_ELSES)
        _check_alone(what, file)
        yield
    finally:
        os.fchown(file, uid, gid)


def _check_alone(what: str, file: int) -> None:
    """By a lease for writing: there is one only while nobody else has the file open, see fcntl(2)."""
    for left in reversed(range(_TRIES)):
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except BlockingIOError:
            if not left:
                raise InUse(f"another process has {what} open", "close it, or end that process") from None
            time.sleep(_PAUSE_SECONDS)
        except OSError as error:
            raise KernelRefused(f"{what}: no lease: {error.strerror}", "use another disk backend") from None
        else:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            return
