"""How a qcow2 file lies on the disk: QEMU's docs/interop/qcow2.txt.

Ours, and those that QEMU makes of them, have one cluster size, no compression, no snapshots of their own and no
encryption; whatever has is refused.
"""

import os
import struct
import sys
from array import array
from pathlib import Path
from typing import BinaryIO

from ingle.api_server.ports.disk import Disk, DiskFormat

_MAGIC = b"QFI\xfb"
_VERSION = 3
_CLUSTER_BITS = 16
CLUSTER = 1 << _CLUSTER_BITS
_REFCOUNT_ORDER = 4  # 16 bits each
_REFCOUNTS = CLUSTER // 2  # of a block of them
ENTRIES = CLUSTER // 8  # of an L2 table, one a cluster; an L1 entry stands for one L2 table
_BYTES_PER_L1_ENTRY = ENTRIES * CLUSTER
_MOST_L1_ENTRIES = 1 << 22

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_BACKING_NAME = struct.Struct(">QI")
_BACKING_NAME_OFFSET = 8
_SIZE_OFFSET = 24
_LONGEST_NAME = 1023

COPIED = 1 << 63  # of an entry: nothing else refers to the cluster
_COMPRESSED = 1 << 62
_OFFSET = 0x00FFFFFFFFFFFE00
ZERO = 1
"""An entry: there are zeros, wherever else it points to."""


class Strange(Exception):
    """It is no qcow2 disk, or none of ingle's."""


class Qcow2:
    """A file that is open, to be read. Raises Strange."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        head = os.pread(descriptor, CLUSTER, 0)
        if len(head) < _HEADER.size:
            raise _strange(path, "it is too short")
        magic, version, name_at, name_length, bits, self.size, encrypted, *rest = _HEADER.unpack_from(head)
        l1_entries, self._l1_at, _, _, snapshots, _, incompatible, _, _, order, length = rest
        if (magic, version, bits, order) != (_MAGIC, _VERSION, _CLUSTER_BITS, _REFCOUNT_ORDER):
            raise _strange(path, "it is none of ingle's")
        if encrypted or snapshots or incompatible or l1_entries > _MOST_L1_ENTRIES or name_length > _LONGEST_NAME:
            raise _strange(path, "it has what ingle's have not")
        self.backing = None if not name_at else Path(os.fsdecode(head[name_at : name_at + name_length]))
        self.backing_format = DiskFormat.RAW
        while length + _EXTENSION.size <= len(head):
            kind, size = _EXTENSION.unpack_from(head, length)
            if not kind:
                break
            if kind == _BACKING_FORMAT:
                at = length + _EXTENSION.size
                self.backing_format = DiskFormat(head[at : at + size].decode("ascii", "replace"))
            length += _EXTENSION.size + -(-size // 8) * 8
        self._l1 = self._table(self._l1_at, l1_entries)

    def table(self, number: int) -> "array[int] | None":
        """What an L2 table has for each of its clusters: 0 where it has none, ZERO, or where it is. None: nothing."""
        if number >= len(self._l1) or not self._l1[number] & _OFFSET:
            return None
        table = self._table(self._l1[number] & _OFFSET, ENTRIES)
        for index, entry in enumerate(table):
            if entry:
                if entry & _COMPRESSED:
                    raise _strange(self.path, "it has what ingle's have not")
                table[index] = ZERO if entry & ZERO else entry & _OFFSET
        return table

    def cluster(self, at: int) -> bytes:
        """The one that is there in the file."""
        return os.pread(self._descriptor, CLUSTER, at).ljust(CLUSTER, b"\0")

    def _table(self, at: int, entries: int) -> "array[int]":
        table = array("Q", os.pread(self._descriptor, entries * 8, at))
        if len(table) != entries:
            raise _strange(self.path, "it ends in the middle")
        return swapped(table)


def swapped(table: "array[int]") -> "array[int]":
    """As it is in a file, or as it is here, in place."""
    if sys.byteorder == "little":
        table.byteswap()
    return table


def empty_overlay(base: Disk, size_bytes: int) -> bytes:
    """Clusters: the header, the refcount table, one refcount block, and the L1 table, with every reference counted."""
    l1_clusters = l1_clusters_of(size_bytes)
    refcount_table, refcount_block, l1_table = CLUSTER, 2 * CLUSTER, 3 * CLUSTER
    clusters = (
        header(base, size_bytes, l1_table, refcount_table, 1),
        struct.pack(">Q", refcount_block),
        struct.pack(">H", 1) * (3 + l1_clusters),
        bytes(l1_clusters * CLUSTER),
    )
    return b"".join(cluster.ljust(CLUSTER, b"\0") for cluster in clusters)


def l1_entries_of(size_bytes: int) -> int:
    """Of the L1 table of a disk of that size."""
    return -(-size_bytes // _BYTES_PER_L1_ENTRY)


def l1_clusters_of(size_bytes: int) -> int:
    """That the L1 table takes."""
    return -(-l1_entries_of(size_bytes) * 8 // CLUSTER)


def header(base: Disk, size_bytes: int, l1_table: int, refcount_table: int, refcount_clusters: int) -> bytes:
    """Of a disk over `base`, whose tables are there; the refcount table takes so many clusters."""
    backing_file, driver = os.fsencode(base.path.absolute()), base.format.value.encode()
    extensions = _EXTENSION.pack(_BACKING_FORMAT, len(driver)) + driver.ljust(8, b"\0") + _EXTENSION.pack(0, 0)
    head = _HEADER.pack(
        _MAGIC,
        _VERSION,
        _HEADER.size + len(extensions),  # where the backing file's name is
        len(backing_file),
        _CLUSTER_BITS,
        size_bytes,
        0,  # not encrypted
        l1_entries_of(size_bytes),
        l1_table,
        refcount_table,
        refcount_clusters,
        0,  # no snapshots
        0,
        0,  # no incompatible features,
        0,  # compatible ones
        0,  # or ones that clear themselves
        _REFCOUNT_ORDER,
        _HEADER.size,
    )
    return head + extensions + backing_file


def refcounts(clusters: int) -> tuple[bytes, int]:
    """What goes behind so many clusters of a file, each of which is referred to once: refcount blocks, then their
    table; and of how many clusters that table is."""
    blocks = tables = 0
    while (needed := _refcounts_for(clusters + blocks + tables)) != (blocks, tables):
        blocks, tables = needed
    counts = struct.pack(">H", 1) * (clusters + blocks + tables)
    offsets = swapped(array("Q", [(clusters + number) * CLUSTER for number in range(blocks)])).tobytes()
    return counts.ljust(blocks * CLUSTER, b"\0") + offsets.ljust(tables * CLUSTER, b"\0"), tables


def _refcounts_for(clusters: int) -> tuple[int, int]:
    blocks = -(-clusters // _REFCOUNTS)
    return blocks, -(-blocks * 8 // CLUSTER)


def name_backing_file(file: BinaryIO, name: bytes) -> None:
    """It is the last in the first cluster; what is there of a longer one does not count."""
    file.seek(_BACKING_NAME_OFFSET)
    offset, _ = _BACKING_NAME.unpack(file.read(_BACKING_NAME.size))
    file.seek(_BACKING_NAME_OFFSET)
    file.write(_BACKING_NAME.pack(offset, len(name)))
    file.seek(offset)
    file.write(name)


def virtual_size(disk: Path) -> int:
    """As its guest sees it."""
    with open(disk, "rb") as file:
        file.seek(_SIZE_OFFSET)
        return int.from_bytes(file.read(8), "big")


def _strange(path: Path, why: str) -> Strange:
    return Strange(f"{path}: as a qcow2 disk {why}")
