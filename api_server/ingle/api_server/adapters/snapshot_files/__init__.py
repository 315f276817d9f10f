"""The files of snapshots."""

from ingle.api_server.adapters.snapshot_files.local import LocalSnapshotFiles

__all__ = ["LocalSnapshotFiles"]
