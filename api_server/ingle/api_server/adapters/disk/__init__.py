"""Root disks: writable copies of an image, as cheap as the host allows."""

from ingle.api_server.adapters.disk.qcow2 import Qcow2Disk
from ingle.api_server.adapters.disk.raw import CopyDisk, ReflinkDisk
from ingle.api_server.adapters.disk.snapshot import SnapshotDisk

__all__ = ["CopyDisk", "Qcow2Disk", "ReflinkDisk", "SnapshotDisk"]
