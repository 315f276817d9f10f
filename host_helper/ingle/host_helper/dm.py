"""device-mapper through /dev/mapper/control: create, load, resume, remove, ask. See linux/dm-ioctl.h.

Knows no names of ours; devices.py does.
"""

import errno
import fcntl
import os
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from ingle.host_helper.errors import InUse, KernelRefused, Missing

SECTOR = 512
CONTROL = "/dev/mapper/control"

# struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid,
# and 7 bytes to the next multiple of 8.
HEADER = struct.Struct("=3IIIIiIIIQ128s129s7x")
# struct dm_target_spec: start, length, status, next, type; the parameters follow.
TARGET = struct.Struct("=QQiI16s")
_NAME_LIST = struct.Struct("=QI")  # struct dm_name_list: dev, next; the name follows

_VERSION = (4, 0, 0)
_BUFFER = 16 * 1024

_DM_LIST_DEVICES, _DM_DEV_CREATE, _DM_DEV_REMOVE = 2, 3, 4
_DM_DEV_SUSPEND, _DM_DEV_STATUS, _DM_TABLE_LOAD, _DM_TABLE_STATUS = 6, 7, 9, 12

_READONLY_FLAG = 1 << 0
_SUSPEND_FLAG = 1 << 1
_STATUS_TABLE_FLAG = 1 << 4
_BUFFER_FULL_FLAG = 1 << 8

# What udev is told with each change (libdevmapper.h): no symbolic links, no look at what is on the device. That is a
# guest's: nobody but the guest should parse it. The low half only says that there is a cookie.
_COOKIE = (0x0002 | 0x0004 | 0x0008 | 0x0010 | 0x0020) << 16 | 0x0D4D

_REMOVE_SECONDS = 10.0


class Target(NamedTuple):
    """A line of a table, in sectors: `parameters` are of the type's own language."""

    start: int
    length: int
    type: str
    parameters: str


def number(command: int) -> int:
    """The ioctl's number: _IOWR(0xfd, command, struct dm_ioctl)."""
    return 3 << 30 | HEADER.size << 16 | 0xFD << 8 | command


def pack(name: str, uuid: str, flags: int, targets: Sequence[Target], event: int = 0) -> bytearray:
    """A request, with room for the answer."""
    data = bytearray()
    for target in targets:
        parameters = target.parameters.encode() + b"\0"
        parameters += bytes(-len(parameters) % 8)
        following = TARGET.size + len(parameters)
        data += TARGET.pack(target.start, target.length, 0, following, target.type.encode()) + parameters
    header = HEADER.pack(
        *_VERSION, _BUFFER, HEADER.size, len(targets), 0, flags, event, 0, 0, name.encode(), uuid.encode()
    )
    return bytearray(header + data + bytes(_BUFFER - len(header) - len(data)))


def unpack_targets(answer: bytes) -> list[Target]:
    """The table, or each target's status, of an answer."""
    *_, start, count, _, _, _, _, _, _, _ = HEADER.unpack_from(answer)
    targets = []
    offset = start
    for _ in range(count):
        first, length, _, following, kind = TARGET.unpack_from(answer, offset)
        parameters = answer[offset + TARGET.size : answer.index(b"\0", offset + TARGET.size)]
        targets.append(Target(first, length, kind.rstrip(b"\0").decode(), parameters.decode()))
        offset = start + following  # counted from the first target, unlike in a request
    return targets


def unpack_names(answer: bytes) -> list[str]:
    """The devices of an answer to a question for all."""
    start = HEADER.unpack_from(answer)[4]
    names: list[str] = []
    while True:
        device, following = _NAME_LIST.unpack_from(answer, start)
        if device == 0:
            return names
        begin = start + _NAME_LIST.size
        names.append(answer[begin : answer.index(b"\0", begin)].decode())
        if following == 0:
            return names
        start += following


class DeviceMapper:
    """The control device, opened. Raises Missing where the host has none."""

    def __init__(self) -> None:
        try:
            self._control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise Missing(f"{CONTROL}: {error.strerror}", "modprobe dm-snapshot") from None

    def close(self) -> None:
        """Devices stay."""
        os.close(self._control)

    def names(self) -> list[str]:
        """Of every device of the host."""
        return unpack_names(self._ask(_DM_LIST_DEVICES, pack("", "", 0, ())))

    def uuid(self, name: str) -> str | None:
        """Who says that it is its; None when there is no such device."""
        try:
            answer = self._ask(_DM_DEV_STATUS, pack(name, "", 0, ()))
        except KernelRefused as error:
            if _number_of(error) == errno.ENXIO:
                return None
            raise
        uuid: bytes = HEADER.unpack_from(answer)[12]
        return uuid.partition(b"\0")[0].decode()

    def device(self, name: str) -> int:
        """Its number, as os.makedev() makes them."""
        device: int = HEADER.unpack_from(self._ask(_DM_DEV_STATUS, pack(name, "", 0, ())))[10]
        return device

    def create(self, name: str, uuid: str, table: Sequence[Target], *, read_only: bool = False) -> None:
        """A device that is at work. A failure leaves none."""
        self._ask(_DM_DEV_CREATE, pack(name, uuid, 0, ()))
        try:
            self.load(name, table, read_only=read_only)
        except BaseException:
            self.remove(name)
            raise

    def load(self, name: str, table: Sequence[Target], *, read_only: bool = False) -> None:
        """Another table, in place of the one at work; what is under way is waited for."""
        self._ask(_DM_TABLE_LOAD, pack(name, "", _READONLY_FLAG if read_only else 0, table))
        self._ask(_DM_DEV_SUSPEND, pack(name, "", 0, (), _COOKIE))  # which without the flag is its opposite

    def suspend(self, name: str) -> None:
        """What is written from now on waits for `load` or `resume`."""
        self._ask(_DM_DEV_SUSPEND, pack(name, "", _SUSPEND_FLAG, ()))

    def resume(self, name: str) -> None:
        """The opposite."""
        self._ask(_DM_DEV_SUSPEND, pack(name, "", 0, (), _COOKIE))

    def table(self, name: str) -> list[Target]:
        """What is at work."""
        return self._targets(name, _STATUS_TABLE_FLAG)

    def status(self, name: str) -> list[Target]:
        """Each target's word on how it is."""
        return self._targets(name, 0)

    def remove(self, name: str) -> None:
        """Nothing when it isn't there. One that is in use, by a VMM on its way out or udev, gets time.

        Raises InUse when that was not enough."""
        deadline = time.monotonic() + _REMOVE_SECONDS
        pause = 0.001
        while True:
            try:
                self._ask(_DM_DEV_REMOVE, pack(name, "", 0, (), _COOKIE))
            except KernelRefused as error:
                if _number_of(error) == errno.ENXIO:
                    return
                if _number_of(error) != errno.EBUSY:
                    raise
                if time.monotonic() > deadline:
                    raise InUse(f"device {name} is in use", "stop what has it open") from None
            else:
                return
            time.sleep(pause)
            pause = min(2 * pause, 0.2)

    def _targets(self, name: str, flags: int) -> list[Target]:
        return unpack_targets(self._ask(_DM_TABLE_STATUS, pack(name, "", flags, ())))

    def _ask(self, command: int, request: bytearray) -> bytes:
        try:
            fcntl.ioctl(self._control, number(command), request, True)  # into the same buffer
        except OSError as error:
            name = HEADER.unpack_from(request)[11].rstrip(b"\0").decode()
            raise KernelRefused(f"device-mapper, {name or 'all'}: {error.strerror}") from error
        if HEADER.unpack_from(request)[7] & _BUFFER_FULL_FLAG:
            raise KernelRefused("device-mapper: an answer longer than its buffer")
        return bytes(request)


def _number_of(error: KernelRefused) -> int | None:
    cause = error.__cause__
    return cause.errno if isinstance(cause, OSError) else None
