"""Give a VM's file to another uid, whatever the API server's user does to the directories meanwhile.

The path is resolved by openat2(2) in one go, below the state root, with no symbolic link anywhere; what is checked is
the descriptor, and what is changed is the same descriptor.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ingle.host_helper.errors import HelperError, KernelRefused
from ingle.host_helper.policy import Policy
from ingle.host_helper.verbs import VmFile
from ingle.v1.error_pb2 import ErrorReason

# The same number on every architecture: include/uapi/asm-generic/unistd.h.
_SYS_OPENAT2 = 437

# linux/openat2.h
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

_AT_EMPTY_PATH = 0x1000  # linux/fcntl.h

_REASONS = {
    errno.ENOENT: ErrorReason.ERROR_REASON_FILE_NOT_FOUND,
    errno.ENOTDIR: ErrorReason.ERROR_REASON_FILE_NOT_FOUND,
    errno.ELOOP: ErrorReason.ERROR_REASON_SYMLINK_REFUSED,
    errno.EXDEV: ErrorReason.ERROR_REASON_SYMLINK_REFUSED,
}

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def chown(policy: Policy, vm: str, file: VmFile, uid: int) -> int:
    """Make `uid` the owner, with the group of the same number, or the API server's own; returns who was the owner.

    Raises HelperError: FILE_NOT_FOUND, SYMLINK_REFUSED, NOT_A_REGULAR_FILE, FILE_PERMISSION_DENIED, TOOL_FAILED."""
    with state_file(policy, f"vms/{vm}/{file.value}", os.O_PATH) as descriptor:
        status = os.fstat(descriptor)
        check_regular(f"{file.value} of VM {vm}", status)
        coming_back = uid == policy.uid and status.st_uid in policy.vm_uids
        if status.st_uid not in {policy.uid, uid} and not coming_back:
            raise HelperError(
                ErrorReason.ERROR_REASON_FILE_PERMISSION_DENIED,
                f"{file.value} of VM {vm} belongs to uid {status.st_uid}; {policy.uid} and {uid} are allowed",
            )
        gid = policy.gid if uid == policy.uid else uid
        if _libc.fchownat(descriptor, b"", uid, gid, _AT_EMPTY_PATH) != 0:
            raise KernelRefused(f"{file.value} of VM {vm}: {os.strerror(ctypes.get_errno())}")
        return status.st_uid


def check_regular(what: str, status: os.stat_result) -> None:
    """Raise NOT_A_REGULAR_FILE unless it is one, with one name only: another name could be anybody's."""
    if not stat.S_ISREG(status.st_mode):
        raise HelperError(ErrorReason.ERROR_REASON_NOT_A_REGULAR_FILE, f"{what} is not a regular file")
    if status.st_nlink != 1:
        raise HelperError(
            ErrorReason.ERROR_REASON_NOT_A_REGULAR_FILE, f"{what} has {status.st_nlink} names; exactly one is allowed"
        )


@contextmanager
def state_file(policy: Policy, path: str, flags: int) -> Iterator[int]:
    """A descriptor of a file below the state root, reached through no symbolic link. Raises HelperError."""
    try:
        root = _openat2(-1, str(policy.state_root), os.O_PATH | os.O_DIRECTORY, _RESOLVE_NO_SYMLINKS)
        try:
            beneath = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
            descriptor = _openat2(root, path, flags, beneath)
        finally:
            os.close(root)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, ErrorReason.ERROR_REASON_TOOL_FAILED)
        raise HelperError(reason, f"{path}: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=0, resolve=resolve)
    descriptor: int = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor
