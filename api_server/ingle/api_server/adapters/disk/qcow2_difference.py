"""What is on a qcow2 disk and not on another one, as an overlay over that one: whatever the two are over themselves, as
long as that is the same in the end."""

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from ingle.api_server.adapters.disk import qcow2_format
from ingle.api_server.adapters.disk.qcow2_format import CLUSTER, COPIED, ENTRIES, ZERO, Qcow2, Strange
from ingle.api_server.host import files
from ingle.api_server.host.threads import Stop
from ingle.api_server.ports.disk import Disk, DiskFormat

_DEEPEST = 64
_ZEROS = bytes(CLUSTER)
_Tables = Sequence["array[int] | None"]


def write(stop: Stop, disk: Path, base: Disk, target: Path) -> None:
    """Write a new disk over `base` that reads as `disk` does, of which nobody writes to any. A failure leaves none.

    Raises HostProblem(DISK_FULL), OSError; Strange, also for two that have no image in common."""
    with (
        ExitStack() as opened,
        files.new_file(target, 0o600) as descriptor,
        open(descriptor, "wb", closefd=False) as out,
    ):
        mine, theirs = _Stack(opened, Disk(disk, DiskFormat.QCOW2)), _Stack(opened, base)
        size = mine.layers[0].size
        l1 = array("Q", bytes(8 * qcow2_format.l1_entries_of(size)))
        l1_clusters = qcow2_format.l1_clusters_of(size)
        out.write(_ZEROS * (1 + l1_clusters))  # header and L1, when it is known
        common = mine.in_common_with(theirs)
        for number in range(len(l1)):
            stop.check()
            table = _different(stop, number, mine, theirs, common, out)
            if table is not None:
                l1[number] = out.tell() | COPIED
                out.write(qcow2_format.swapped(table).tobytes())
        clusters = out.tell() // CLUSTER
        counts, tables = qcow2_format.refcounts(clusters)
        out.write(counts)
        refcount_table = out.tell() - tables * CLUSTER
        out.seek(0)
        out.write(qcow2_format.header(base, size, CLUSTER, refcount_table, tables))
        out.seek(CLUSTER)
        out.write(qcow2_format.swapped(l1).tobytes())


def _different(
    stop: Stop, number: int, mine: "_Stack", theirs: "_Stack", common: int, out: BinaryIO
) -> "array[int] | None":
    """The L2 table with that number of what differs, whose clusters are written; None where nothing does."""
    here, there = mine.tables(number), theirs.tables(number)
    found = None
    for index in _touched(here[: len(here) - common], there[: len(there) - common]):
        stop.check()
        at = number * ENTRIES + index
        data = mine.read(here, index, at)
        if data == theirs.read(there, index, at):
            continue
        if found is None:
            found = array("Q", bytes(CLUSTER))
        if data == _ZEROS:
            found[index] = ZERO
        else:
            found[index] = out.tell() | COPIED
            out.write(data)
    return found


def _touched(*stacks: _Tables) -> Iterator[int]:
    """Clusters that any of these tables has."""
    tables = [table for stack in stacks for table in stack if table is not None]
    return (index for index in range(ENTRIES) if any(table[index] for table in tables)) if tables else iter(())


class _Stack:
    """A disk, and what it is over, from the top: qcow2 disks, then an image."""

    def __init__(self, opened: ExitStack, disk: Disk) -> None:
        self.layers: list[Qcow2] = []
        path: Path | None = disk.path
        format_ = disk.format
        while format_ is DiskFormat.QCOW2 and path is not None and len(self.layers) < _DEEPEST:
            self.layers.append(Qcow2(path, _opened(opened, path)))
            path, format_ = self.layers[-1].backing, self.layers[-1].backing_format
        self.image = path
        self._image = None if path is None else _opened(opened, path)

    def in_common_with(self, other: "_Stack") -> int:
        """How many of the lowest layers are the same."""
        if self.image != other.image:
            raise Strange(f"{self.layers[0].path} is over {self.image}, and the other one over {other.image}")
        pairs = zip(reversed(self.layers), reversed(other.layers), strict=False)
        return next(
            (count for count, (mine, theirs) in enumerate(pairs) if mine.path != theirs.path),
            min(len(self.layers), len(other.layers)),
        )

    def tables(self, number: int) -> _Tables:
        """Each layer's L2 table with that number."""
        return [layer.table(number) for layer in self.layers]

    def read(self, tables: _Tables, index: int, cluster: int) -> bytes:
        """What is on the disk there."""
        for layer, table in zip(self.layers, tables, strict=True):
            if table is not None and table[index]:
                return _ZEROS if table[index] == ZERO else layer.cluster(table[index])
        if self._image is None:
            return _ZEROS
        return os.pread(self._image, CLUSTER, cluster * CLUSTER).ljust(CLUSTER, b"\0")


def _opened(stack: ExitStack, path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor
