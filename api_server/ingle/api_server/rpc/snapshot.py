"""SnapshotService."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.labels import has_all
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.operations.runner import Ongoing
from ingle.api_server.operations.snapshot_transfer import SnapshotTransfer
from ingle.api_server.operations.snapshots import Snapshots
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.rpc import convert, uploads, who
from ingle.api_server.rpc.paging import by_time, page
from ingle.v1 import snapshot_pb2, snapshot_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class SnapshotServicer(snapshot_pb2_grpc.SnapshotServiceServicer):
    """Snapshots."""

    def __init__(self, store: SnapshotStore, snapshots: Snapshots, transfer: SnapshotTransfer) -> None:
        self._store = store
        self._transfer = transfer
        self._snapshots = snapshots

    async def CreateSnapshot(
        self, request: snapshot_pb2.CreateSnapshotRequest, context: Context
    ) -> snapshot_pb2.CreateSnapshotResponse:
        running = await self._create(request, context)
        return snapshot_pb2.CreateSnapshotResponse(snapshot=convert.snapshot(await running.result()))

    async def BeginCreateSnapshot(
        self, request: snapshot_pb2.BeginCreateSnapshotRequest, context: Context
    ) -> snapshot_pb2.BeginCreateSnapshotResponse:
        running = await self._create(request, context)
        return snapshot_pb2.BeginCreateSnapshotResponse(operation_id=running.operation.id)

    async def GetSnapshot(
        self, request: snapshot_pb2.GetSnapshotRequest, context: Context
    ) -> snapshot_pb2.GetSnapshotResponse:
        found = await self._store.find(who.reference(context, request.snapshot))
        return snapshot_pb2.GetSnapshotResponse(snapshot=convert.snapshot(found))

    async def ListSnapshots(
        self, request: snapshot_pb2.ListSnapshotsRequest, context: Context
    ) -> snapshot_pb2.ListSnapshotsResponse:
        found = await self._store.of(who.caller(context), all_users=request.all_users)
        labels = convert.wanted_labels(request.labels)
        wanted = (
            each for each in found if has_all(each.labels, labels) and request.of_vm in ("", each.vm_id, each.vm_name)
        )
        snapshots, token = page(wanted, by_time, request, convert.snapshot)
        return snapshot_pb2.ListSnapshotsResponse(snapshots=snapshots, next_page_token=token)

    async def ExportSnapshot(
        self, request: snapshot_pb2.ExportSnapshotRequest, context: Context
    ) -> AsyncIterator[snapshot_pb2.ExportSnapshotResponse]:
        async with self._transfer.exported(who.reference(context, request.snapshot)) as pieces:
            async for piece in pieces:
                yield snapshot_pb2.ExportSnapshotResponse(data=piece)

    async def ImportSnapshot(
        self, request_iterator: AsyncIterator[snapshot_pb2.ImportSnapshotRequest], context: Context
    ) -> snapshot_pb2.ImportSnapshotResponse:
        start = (await uploads.first(request_iterator)).start
        upload = uploads.pieces(request_iterator)
        running = await self._transfer.import_(current_operation.get(), who.caller(context), start.name, upload)
        return snapshot_pb2.ImportSnapshotResponse(snapshot=convert.snapshot(await running.result()))

    async def FlattenSnapshot(
        self, request: snapshot_pb2.FlattenSnapshotRequest, context: Context
    ) -> snapshot_pb2.FlattenSnapshotResponse:
        reference = who.reference(context, request.snapshot)
        running = await self._snapshots.flatten(current_operation.get(), reference)
        return snapshot_pb2.FlattenSnapshotResponse(snapshot=convert.snapshot(await running.result()))

    async def DeleteSnapshot(
        self, request: snapshot_pb2.DeleteSnapshotRequest, context: Context
    ) -> snapshot_pb2.DeleteSnapshotResponse:
        reference = who.reference(context, request.snapshot)
        running = await self._snapshots.delete(current_operation.get(), reference)
        deleted = await running.result()
        return snapshot_pb2.DeleteSnapshotResponse(used_by=deleted.used_by, freed_bytes=deleted.freed_bytes)

    async def _create(
        self, request: snapshot_pb2.CreateSnapshotRequest | snapshot_pb2.BeginCreateSnapshotRequest, context: Context
    ) -> Ongoing[Snapshot]:
        reference = who.reference(context, request.vm)
        return await self._snapshots.create(current_operation.get(), reference, convert.snapshot_wish(request))
