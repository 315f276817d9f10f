"""Root's rights, of which a helper keeps few: capabilities(7).

A unit's file says the same. But a drop-in can say otherwise, and who starts a helper by hand has no unit; so the
process gives up the rest by itself, before it has a thread, a socket or a line of anybody's input. The numbers are
those of linux/capability.h, the calls' those of linux/prctl.h and capget(2).
"""

import ctypes
import os
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple


class Capability(IntEnum):
    """Those that some helper needs; each name with CAP_ before it is the kernel's."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    NET_ADMIN = 12
    SYS_ADMIN = 21
    MKNOD = 27

    def __str__(self) -> str:
        return f"CAP_{self.name}"


NETWORK = frozenset({Capability.NET_ADMIN, Capability.CHOWN, Capability.DAC_READ_SEARCH})
"""Interfaces and rules; owners; into the API server's directories."""

DEVICES = frozenset(
    {
        Capability.SYS_ADMIN,
        Capability.MKNOD,
        Capability.CHOWN,
        Capability.DAC_READ_SEARCH,
        Capability.DAC_OVERRIDE,
    }
)
"""Device-mapper and loop devices; their nodes, and those nodes' owner; into directories, and disks open for writing."""


class RightsMissing(Exception):
    """The process was not given what it is to keep; the message names it."""


class Rights(NamedTuple):
    """What a thread has. Numbers of capabilities, since the kernel may know more of them than we name.

    `bounding` is what a program that it starts could get, if only that were allowed to gain any."""

    effective: frozenset[int]
    permitted: frozenset[int]
    bounding: frozenset[int]


def keep(wanted: frozenset[Capability]) -> None:
    """Give up, for good, every capability but `wanted`, and the way to get any by starting a program.

    The kernel does this for the calling thread alone, so that must be the only one. What `wanted` lacks can't be had by
    programs that are started, either: root's get what is in the bounding set. Where the process may not narrow that
    (CAP_SETPCAP, which a unit doesn't leave), no_new_privs keeps them from what is in it beyond `wanted`.

    Raises RightsMissing, OSError."""
    assert len(os.listdir("/proc/self/task")) == 1
    had = held()
    missing = wanted - had.permitted
    if missing:
        raise RightsMissing(f"{', '.join(listed(missing))}: needed, and not given to this process")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if _SETPCAP in had.effective:
        for number in had.bounding - wanted:
            _prctl(_PR_CAPBSET_DROP, number)
    _capset(wanted)


def held() -> Rights:
    """What the calling thread has now, asked of the kernel. Raises OSError."""
    header, data = _header(), _Data()
    _checked(_libc.capget(ctypes.byref(header), data))
    low, high = data
    return Rights(
        frozenset(_numbers(low.effective | high.effective << 32)),
        frozenset(_numbers(low.permitted | high.permitted << 32)),
        frozenset(number for number in _known() if _prctl(_PR_CAPBSET_READ, number)),
    )


def listed(numbers: frozenset[int] | frozenset[Capability]) -> list[str]:
    """By name, in the order of their numbers; those that we don't name as "38"."""
    known = {int(capability) for capability in Capability}
    return [str(Capability(number)) if number in known else str(number) for number in sorted(numbers)]


_SETPCAP = 8
_MOST = 64  # two words of 32 bits
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    """struct __user_cap_data_struct: 32 capabilities."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_Data = _Word * 2


def _header() -> _Header:
    return _Header(_VERSION_3, 0)


def _capset(wanted: frozenset[Capability]) -> None:
    """Exactly these are permitted and in effect; none is inherited."""
    mask = sum(1 << capability for capability in wanted)
    words = (mask & 0xFFFFFFFF, mask >> 32)
    header, data = _header(), _Data(*(_Word(word, word, 0) for word in words))
    _checked(_libc.capset(ctypes.byref(header), data))


def _known() -> Iterator[int]:
    """Those that this kernel has."""
    for number in range(_MOST):
        if _libc.prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) < 0:
            return
        yield number


def _numbers(mask: int) -> Iterator[int]:
    return (number for number in range(_MOST) if mask >> number & 1)


def _prctl(option: int, second: int = 0, third: int = 0) -> int:
    return _checked(_libc.prctl(option, ctypes.c_ulong(second), ctypes.c_ulong(third), 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
