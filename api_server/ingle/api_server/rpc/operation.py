"""OperationService."""

import contextlib
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.model.errors import NotFound
from ingle.api_server.model.operation import Operation, OperationKind, OperationState
from ingle.api_server.model.resource import ResourceKind
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.runner import Operations
from ingle.api_server.pipeline import uninterrupted
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.rpc import convert, who
from ingle.api_server.rpc.paging import newest_first, page
from ingle.v1 import operation_pb2, operation_pb2_grpc

_DELETIONS = frozenset(
    {
        OperationKind.DELETE_VM,
        OperationKind.DELETE_IMAGE,
        OperationKind.DELETE_KERNEL,
        OperationKind.DELETE_SNAPSHOT,
    }
)

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class OperationServicer(operation_pb2_grpc.OperationServiceServicer):
    """Operations."""

    def __init__(
        self, operations: Operations, vms: VmStore, images: Images, kernels: Kernels, snapshots: SnapshotStore
    ) -> None:
        self._operations = operations
        self._vms = vms
        self._images = images
        self._kernels = kernels
        self._snapshots = snapshots

    async def GetOperation(
        self, request: operation_pb2.GetOperationRequest, context: Context
    ) -> operation_pb2.GetOperationResponse:
        operation = await self._operations.get(request.operation_id, who.caller(context))
        return operation_pb2.GetOperationResponse(operation=await self._with_result(operation))

    async def ListOperations(
        self, request: operation_pb2.ListOperationsRequest, context: Context
    ) -> operation_pb2.ListOperationsResponse:
        operations, token = page(
            await self._operations.list(who.caller(context), all_users=request.all_users),
            newest_first,
            request,
            convert.operation,
        )
        return operation_pb2.ListOperationsResponse(operations=operations, next_page_token=token)

    async def WatchOperation(
        self, request: operation_pb2.WatchOperationRequest, context: Context
    ) -> AsyncIterator[operation_pb2.WatchOperationResponse]:
        ended, caller = False, who.caller(context)
        try:
            async for operation in self._operations.watch(request.operation_id, caller):
                ended = operation.state is not OperationState.RUNNING
                yield operation_pb2.WatchOperationResponse(operation=await self._with_result(operation))
        finally:
            if request.cancel_on_disconnect and not ended:
                await uninterrupted(self._operations.cancel_if_known(request.operation_id, caller))

    async def CancelOperation(
        self, request: operation_pb2.CancelOperationRequest, context: Context
    ) -> operation_pb2.CancelOperationResponse:
        operation = await self._operations.cancel(request.operation_id, who.caller(context))
        return operation_pb2.CancelOperationResponse(operation=await self._with_result(operation))

    async def _with_result(self, operation: Operation) -> operation_pb2.Operation:
        message = convert.operation(operation)
        if operation.state is not OperationState.SUCCEEDED or operation.kind in _DELETIONS:
            return message
        with contextlib.suppress(NotFound):  # it was deleted since
            match operation.kind.about:
                case ResourceKind.VM:
                    message.vm.CopyFrom(convert.vm(await self._vms.get(operation.target_id)))
                case ResourceKind.IMAGE:
                    image = await self._images.get(operation.target_id)
                    message.image.CopyFrom(convert.image(image, self._images.allocated_bytes(image)))
                case ResourceKind.KERNEL:
                    message.kernel.CopyFrom(convert.kernel(await self._kernels.get(operation.target_id)))
                case ResourceKind.SNAPSHOT:
                    message.snapshot.CopyFrom(convert.snapshot(await self._snapshots.get(operation.target_id)))
        return message
