"""Loop devices by LOOP_CONFIGURE, see loop(4): set up at once, and gone with their last user.

Each carries a tag in place of a file name, so that ours are known, and an image's is found again.
"""

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ingle.host_helper.errors import KernelRefused, Missing

# linux/loop.h
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY = 1
_AUTOCLEAR = 4

# struct loop_info64: device, inode, rdevice, offset, sizelimit, number, 2 for encryption, flags, name, crypt_name, key,
# init
INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG = struct.Struct(f"=II{INFO.size}s64x")  # struct loop_config: fd, block_size, info, reserved

_CONTROL = "/dev/loop-control"
_BLOCK = 512
_TRIES = 50
_NAME = re.compile(r"loop\d+")


class Loop(NamedTuple):
    """A loop device, held open: it lives as long as this or another holds it."""

    descriptor: int
    device: str  # "7:3", as device-mapper likes it


def pack(file: int, tag: str, *, read_only: bool) -> bytes:
    """A struct loop_config."""
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
    info = INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, tag.encode(), b"", b"", 0, 0)
    return _CONFIG.pack(file, _BLOCK, info)


@contextmanager
def attached(file: int, tag: str, *, read_only: bool) -> Iterator[Loop]:
    """A new loop device over an open file. Raises Missing, KernelRefused."""
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Missing(f"{_CONTROL}: {error.strerror}", "modprobe loop") from None
    try:
        descriptor = _configure(control, pack(file, tag, read_only=read_only), read_only=read_only)
    finally:
        os.close(control)
    try:
        yield Loop(descriptor, _device(descriptor))
    finally:
        os.close(descriptor)


@contextmanager
def found(file: int, tag: str) -> Iterator[Loop | None]:
    """The loop device with this tag over this very file, if there is one."""
    status = os.fstat(file)
    for entry in Path("/sys/block").iterdir():
        if _NAME.fullmatch(entry.name) and (entry / "loop").exists():
            with _opened(entry.name) as loop:
                if loop is not None and _is(loop.descriptor, tag, status):
                    yield loop
                    return
    yield None


def grown(device: str) -> None:
    """Have a loop device take over its file's new size. Raises KernelRefused."""
    name = Path(f"/sys/dev/block/{device}").resolve().name
    descriptor = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _LOOP_SET_CAPACITY)
    except OSError as error:
        raise KernelRefused(f"{name}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _configure(control: int, config: bytes, *, read_only: bool) -> int:
    """The free one may be another's by the time it is opened; then the next is tried."""
    mode = os.O_RDONLY if read_only else os.O_RDWR
    for _ in range(_TRIES):
        name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
        try:
            descriptor = os.open(name, mode | os.O_CLOEXEC)
        except OSError as error:
            raise KernelRefused(f"{name}: {error.strerror}") from error
        try:
            fcntl.ioctl(descriptor, _LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(descriptor)
            if error.errno != errno.EBUSY:
                raise KernelRefused(f"{name}: {error.strerror}") from error
        else:
            return descriptor
    raise KernelRefused("no loop device stays free")


@contextmanager
def _opened(name: str) -> Iterator[Loop | None]:
    try:
        descriptor = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield Loop(descriptor, _device(descriptor))
    finally:
        os.close(descriptor)


def _is(descriptor: int, tag: str, status: os.stat_result) -> bool:
    info = bytearray(INFO.size)
    try:
        fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, info, True)  # into the same buffer
    except OSError:
        return False  # cleared meanwhile
    device, inode, *_ = INFO.unpack(info)
    name = INFO.unpack(info)[9].rstrip(b"\0").decode(errors="replace")
    return bool(name == tag and inode == status.st_ino and device == status.st_dev)


def _device(descriptor: int) -> str:
    number = os.fstat(descriptor).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"
