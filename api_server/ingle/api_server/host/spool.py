"""What a caller sends, kept as a file of our own: bounded, holes as holes, and never the last of the disk."""

import errno
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from ingle.api_server.host.files import mount_point, new_file
from ingle.api_server.host.threads import in_thread
from ingle.api_server.model.errors import HostProblem, InvalidArgument, Reason

_LEFT_FREE = 64 << 20
"""Nobody's upload, nor what it unpacks to, takes the rest of the disk from the VMs that run."""


async def spool(pieces: AsyncIterator[tuple[int, bytes]], target: Path, most: int) -> None:
    """Write the new file `target`, of `most` bytes at most: each piece is a hole of so many bytes, then data. A failure
    leaves no file.

    Raises InvalidArgument, HostProblem(DISK_FULL), and what `pieces` raise."""
    with new_file(target, 0o600) as descriptor:
        end = 0
        async for hole, data in pieces:
            if end + hole + len(data) > most:
                raise InvalidArgument(f"it has more than the {most >> 20} MiB that are allowed")
            end += hole
            if data:
                await in_thread(_write, descriptor, data, end, target)
                end += len(data)
        await in_thread(_truncate, descriptor, end)


def write_all(pieces: Iterable[bytes], target: Path) -> None:
    """Write the new file `target`. A failure leaves no file. Raises HostProblem(DISK_FULL), and what `pieces` raise."""
    with new_file(target, 0o600) as descriptor:
        end = 0
        for piece in pieces:
            _write(descriptor, piece, end, target)
            end += len(piece)


def check_room(directory: Path, size: int) -> None:
    """Raise HostProblem(DISK_FULL) unless the file system of `directory` can take `size` bytes and have some left."""
    if _free(os.statvfs(directory)) < size + _LEFT_FREE:
        raise _full(directory)


def _write(descriptor: int, piece: bytes, at: int, target: Path) -> None:
    if _free(os.fstatvfs(descriptor)) < len(piece) + _LEFT_FREE:
        raise _full(target.parent)
    written = 0
    while written < len(piece):
        written += os.pwrite(descriptor, memoryview(piece)[written:], at + written)


def _truncate(descriptor: int, size: int) -> None:
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise InvalidArgument(f"{size >> 20} MiB: the host's file system takes no file of that size") from None


def _free(facts: os.statvfs_result) -> int:
    return facts.f_bavail * facts.f_frsize


def _full(directory: Path) -> HostProblem:
    where = mount_point(directory)
    return HostProblem(
        Reason.DISK_FULL,
        f"no space left on the file system at {where} but the {_LEFT_FREE >> 20} MiB that are kept for others",
        f"df -h {where}",
    )
