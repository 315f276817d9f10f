"""The devices part: a VM's disk is a writable snapshot of its image, whose blocks all VMs of the image share.

    image file -- loop, read-only, one for all VMs of the image
                    |
    ingle-VM-base:  linear over it, then zeros up to the disk's size
                    |
    ingle-VM:       snapshot of that, changes to the loop device over the VM's copy-on-write file

What is ours carries a UUID that begins with INGLE-. A VMM opens /dev/ingle/VM, a node of our own that belongs to the
API server's user: who owns device-mapper's is udev's to say, again and again.
"""

import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper import cow_file, loop
from ingle.host_helper.chown import check_regular, state_file
from ingle.host_helper.dm import SECTOR, DeviceMapper, Target
from ingle.host_helper.errors import HelperError, InUse, InvalidRequest, KernelRefused
from ingle.host_helper.policy import Policy
from ingle.host_helper.state import Device, Resource, State
from ingle.host_helper.verbs import VmFile
from ingle.v1.error_pb2 import ErrorReason

log = logging.getLogger(__name__)

_NODES = Path("/dev/ingle")
_UUID = "INGLE-"
_NAME = re.compile(r"ingle-([0-9a-f]{12})(-base)?")
_ROOTFS = "rootfs.ext4"


def name_of(vm: str) -> str:
    """The device that a VM writes to."""
    return f"ingle-{vm}"


def base_of(vm: str) -> str:
    """What it is a snapshot of."""
    return f"ingle-{vm}-base"


def base_table(image_device: str, image_size: int, size: int) -> list[Target]:
    """The image, and zeros behind it."""
    image, all_of_it = image_size // SECTOR, size // SECTOR
    table = [Target(0, image, "linear", f"{image_device} 0")]
    return table if image == all_of_it else [*table, Target(image, all_of_it - image, "zero", "")]


def snapshot_table(base: int, cow: str, size: int) -> list[Target]:
    """Persistent, and able to say that it overflowed: Documentation/admin-guide/device-mapper/snapshot.rst."""
    origin = f"{os.major(base)}:{os.minor(base)}"
    return [Target(0, size // SECTOR, "snapshot", f"{origin} {cow} PO {cow_file.CHUNK_SECTORS}")]


def state_of(status: str) -> tuple["pb.SnapshotState.ValueType", int, int]:
    """What a snapshot's status line says: its state, and of the changes' file the bytes used and all of them."""
    used, slash, rest = status.partition("/")
    if not slash:
        return pb.SNAPSHOT_STATE_OVERFLOWED, 0, 0  # "Overflow", "Invalid", or another word for the same
    return pb.SNAPSHOT_STATE_VALID, int(used) * SECTOR, int(rest.split()[0]) * SECTOR


class DevicesPart:
    """Implements part.Part."""

    number: "pb.Part.ValueType" = pb.PART_DEVICES
    untidy = False

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._mapper = DeviceMapper()

    def close(self) -> None:
        self._mapper.close()

    def watch(self, changed: Callable[[], None]) -> None:
        """What others do is no concern of a disk's."""

    def tidy(self) -> None:
        """Nothing is ever put off."""

    def check(self, old: State, new: State) -> None:
        for device in new.beyond(old):
            if isinstance(device, Device):
                with self._image(device), self._cow_file(device):
                    pass

    def change(self, old: State, new: State, named: Sequence[Resource]) -> None:
        for resource in old.beyond(new):
            if isinstance(resource, Device) and new.device(resource.vm) is None:
                self._remove(resource.vm)
        for resource in [*new.beyond(old), *named]:
            if isinstance(resource, Device):
                self._ensure(resource)

    def settle(self, state: State) -> None:
        failures: list[HelperError] = []
        wanted = {device.vm: device for device in state.all(Device)}
        for vm in self._ours() - wanted.keys():
            try:
                self._remove(vm)
            except HelperError as error:
                failures.append(error)
        for device in wanted.values():
            try:
                self._ensure(device)
            except HelperError as error:
                failures.append(error)
        for failure in failures:
            log.error("not settled: %s", failure.message)
        if failures:
            raise failures[0]

    def describe(self, named: Sequence[Resource], state: State) -> pb.ApplyResponse:
        return pb.ApplyResponse(devices=[self._message(each) for each in named if isinstance(each, Device)])

    def examine(self, state: State) -> pb.ExamineResponse:
        return pb.ExamineResponse(devices=pb.Usage(used=len(state.all(Device)), limit=self._policy.max_devices))

    def find_overlaps(self) -> Sequence[pb.Overlap]:
        """Disks have no addresses."""
        return ()

    def list(self, state: State) -> pb.ListResponse:
        return pb.ListResponse(devices=[self._message(each) for each in state.all(Device)])

    def _ours(self) -> set[str]:
        """VMs that have any part of a device of ours."""
        matches = filter(None, map(_NAME.fullmatch, self._mapper.names()))
        nodes = {node.name for node in _NODES.iterdir()} if _NODES.is_dir() else set()
        return {match[1] for match in matches if self._is_ours(match[0])} | nodes

    def _is_ours(self, name: str) -> bool:
        return (self._mapper.uuid(name) or "").startswith(_UUID)

    def _ensure(self, device: Device) -> None:
        name, base = name_of(device.vm), base_of(device.vm)
        for each in (name, base):
            if self._mapper.uuid(each) not in {None, _UUID + each}:
                raise InUse(f"device {each} is there and not ours", f"dmsetup remove {each}")
        if self._mapper.uuid(name) is None:
            self._mapper.remove(base)  # what is left of one that was never finished
            self._create(device)
        elif self._length(name) != device.size:
            self._resize(device)
        self._make_node(device.vm)

    def _create(self, device: Device) -> None:
        name, base = name_of(device.vm), base_of(device.vm)
        with self._image_loop(device) as (image, size), self._cow_file(device, own=True) as file:
            self._mapper.create(base, _UUID + base, base_table(image.device, size, device.size), read_only=True)
            try:
                with loop.attached(file, f"ingle-vm-{device.vm}", read_only=False) as cow:
                    table = snapshot_table(self._mapper.device(base), cow.device, device.size)
                    self._mapper.create(name, _UUID + name, table)
            except BaseException:
                self._mapper.remove(base)
                raise

    def _resize(self, device: Device) -> None:
        """The same loop devices under longer tables; writes wait for the moment that it takes."""
        name, base = name_of(device.vm), base_of(device.vm)
        (snapshot,) = self._mapper.table(name)
        cow = snapshot.parameters.split()[1]
        image = self._mapper.table(base)[0]
        loop.grown(cow)
        self._mapper.suspend(name)
        try:
            image_device = image.parameters.split()[0]
            base_now = base_table(image_device, image.length * SECTOR, device.size)
            self._mapper.load(base, base_now, read_only=True)
            self._mapper.load(name, snapshot_table(self._mapper.device(base), cow, device.size))
        except BaseException:
            self._mapper.resume(name)
            raise

    def _remove(self, vm: str) -> None:
        for name in (name_of(vm), base_of(vm)):  # the loop devices go with their last user
            if self._is_ours(name):
                self._mapper.remove(name)
        (_NODES / vm).unlink(missing_ok=True)

    def _make_node(self, vm: str) -> None:
        node, device = _NODES / vm, self._mapper.device(name_of(vm))
        with suppress(FileNotFoundError):
            status = node.lstat()
            if stat.S_ISBLK(status.st_mode) and status.st_rdev == device and status.st_uid == self._policy.uid:
                return
            node.unlink()
        _NODES.mkdir(exist_ok=True)
        _NODES.chmod(0o755)  # whatever the umask
        os.mknod(node, stat.S_IFBLK | 0o600, device)
        os.chown(node, self._policy.uid, self._policy.gid, follow_symlinks=False)

    @contextmanager
    def _image(self, device: Device) -> Iterator[int]:
        with state_file(self._policy, f"images/{device.image}/{_ROOTFS}", os.O_RDONLY | os.O_NONBLOCK) as file:
            self._check_file(f"image {device.image}", file)
            size = os.fstat(file).st_size
            if size % 4096 or not 0 < size <= device.size:
                raise InvalidRequest(
                    f"{device.size} bytes for image {device.image}, which has {size}",
                    "a disk has at least its image's size, and that is a multiple of 4096",
                )
            yield file

    @contextmanager
    def _image_loop(self, device: Device) -> Iterator[tuple[loop.Loop, int]]:
        """The image's loop device, of another VM if one has it."""
        tag = f"ingle-image-{device.image[:48]}"
        with self._image(device) as file:
            size = os.fstat(file).st_size
            with loop.found(file, tag) as shared:
                if shared is not None:
                    yield shared, size
                    return
            with loop.attached(file, tag, read_only=True) as fresh:
                yield fresh, size

    @contextmanager
    def _cow_file(self, device: Device, *, own: bool = False) -> Iterator[int]:
        """The VM's copy-on-write file; `own`: until the kernel has read it, for whoever asked could change it."""
        what = f"{VmFile.COW.value} of VM {device.vm}"
        with state_file(self._policy, f"vms/{device.vm}/{VmFile.COW.value}", os.O_RDWR | os.O_NONBLOCK) as file:
            self._check_file(what, file)
            if own:
                with cow_file.taken(what, file, self._policy.uid, self._policy.gid):
                    cow_file.check(what, file, device.size)
                    yield file
            else:
                cow_file.check(what, file, device.size)
                yield file

    def _check_file(self, what: str, file: int) -> None:
        status = os.fstat(file)
        check_regular(what, status)
        if not cow_file.is_ours(status, self._policy.uid, self._policy.gid):
            raise HelperError(
                ErrorReason.ERROR_REASON_FILE_PERMISSION_DENIED,
                f"{what} belongs to uid {status.st_uid}; {self._policy.uid} is allowed",
            )

    def _length(self, name: str) -> int:
        return sum(target.length for target in self._mapper.table(name)) * SECTOR

    def _message(self, device: Device) -> pb.SnapshotDevice:
        state, used, capacity = pb.SNAPSHOT_STATE_MISSING, 0, 0
        with suppress(KernelRefused):
            for target in self._mapper.status(name_of(device.vm)):
                state, used, capacity = state_of(target.parameters)
        return pb.SnapshotDevice(
            vm_id=device.vm,
            image_id=device.image,
            size_bytes=device.size,
            path=str(_NODES / device.vm),
            state=state,
            used_bytes=used,
            capacity_bytes=capacity,
        )
