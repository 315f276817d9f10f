"""Snapshots, and what is wanted of them."""

from collections.abc import Mapping

from ingle.api_server.model.snapshot import Snapshot, SnapshotState
from ingle.api_server.operations.snapshots import SnapshotWish
from ingle.api_server.rpc.convert.times import duration, timestamp
from ingle.v1 import snapshot_pb2

_STATES: Mapping[SnapshotState, snapshot_pb2.SnapshotState.ValueType] = {
    state: snapshot_pb2.SnapshotState.Value(f"SNAPSHOT_STATE_{state.name}") for state in SnapshotState
}


def snapshot(value: Snapshot) -> snapshot_pb2.Snapshot:
    """A snapshot."""
    settings = value.settings
    return snapshot_pb2.Snapshot(
        id=value.id,
        name=value.name,
        state=_STATES[value.state],
        created_at=timestamp(value.created_at),
        vm_id=value.vm_id,
        vm_name=value.vm_name,
        memory=value.memory,
        image_id=settings.image_id,
        image_name=settings.image_name,
        kernel_id=settings.kernel_id,
        kernel_name=settings.kernel_name,
        engine=settings.engine,
        disk_backend=settings.disk_backend,
        vcpus=settings.vcpus,
        memory_bytes=settings.memory_bytes,
        disk_bytes=settings.disk_bytes,
        size_bytes=value.size_bytes,
        pause=duration(value.pause_seconds),
        parent_id=value.parent_id,
        used_by=value.used_by,
        depth=value.depth,
        labels=value.labels or None,
        owner=value.owner,
    )


def snapshot_wish(
    request: snapshot_pb2.CreateSnapshotRequest | snapshot_pb2.BeginCreateSnapshotRequest,
) -> SnapshotWish:
    """As it came."""
    return SnapshotWish(
        name=request.name,
        disk_only=request.disk_only,
        labels=dict(request.labels),
        parent=request.parent,
        full=request.full,
    )
