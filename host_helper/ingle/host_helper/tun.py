"""Taps through /dev/net/tun: made, given to a uid, taken back. See tuntap(4) and linux/if_tun.h."""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from ingle.host_helper.errors import Missing

_DEVICE = "/dev/net/tun"

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_TUN_EXCL = 0x8000

_IFREQ = struct.Struct("16sH22x")


@contextmanager
def created(name: str) -> Iterator[int]:
    """A new tap, which is gone after the block unless `keep` was called. Raises FileExistsError, Missing, OSError."""
    try:
        with _open(name, _IFF_TUN_EXCL) as descriptor:
            yield descriptor
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise FileExistsError(errno.EEXIST, f"there is an interface {name}") from None
        raise


@contextmanager
def attached(name: str) -> Iterator[int]:
    """A tap that is there. Raises OSError: EBUSY when another process has it open, EINVAL when it isn't a tap."""
    with _open(name, 0) as descriptor:
        yield descriptor


def give(descriptor: int, uid: int) -> None:
    """Only `uid`, and who has CAP_NET_ADMIN, can open it from now on."""
    fcntl.ioctl(descriptor, _TUNSETOWNER, uid)


def keep(descriptor: int) -> None:
    """It outlives the descriptor."""
    fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)


@contextmanager
def _open(name: str, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Missing(f"{_DEVICE}: {error.strerror}", "modprobe tun") from None
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI | flags))
        yield descriptor
    finally:
        os.close(descriptor)
