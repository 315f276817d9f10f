"""OperationService."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.operation import OperationState
from ingle.api_server.operations.runner import Operations
from ingle.api_server.pipeline import uninterrupted
from ingle.api_server.rpc import convert
from ingle.v1 import operation_pb2, operation_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"

_DEFAULT_LIMIT = 100
_MOST = 1000


class OperationServicer(operation_pb2_grpc.OperationServiceServicer):
    """Operations."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def GetOperation(
        self, request: operation_pb2.GetOperationRequest, context: Context
    ) -> operation_pb2.GetOperationResponse:
        operation = await self._operations.get(request.operation_id)
        return operation_pb2.GetOperationResponse(operation=convert.operation(operation))

    async def ListOperations(
        self, request: operation_pb2.ListOperationsRequest, context: Context
    ) -> operation_pb2.ListOperationsResponse:
        if request.limit > _MOST:
            raise InvalidArgument(f"limit {request.limit}: 1 to {_MOST} is allowed (0 means {_DEFAULT_LIMIT})")
        operations = await self._operations.list(request.limit or _DEFAULT_LIMIT)
        return operation_pb2.ListOperationsResponse(operations=[convert.operation(item) for item in operations])

    async def WatchOperation(
        self, request: operation_pb2.WatchOperationRequest, context: Context
    ) -> AsyncIterator[operation_pb2.WatchOperationResponse]:
        ended = False
        try:
            async for operation in self._operations.watch(request.operation_id):
                ended = operation.state is not OperationState.RUNNING
                yield operation_pb2.WatchOperationResponse(operation=convert.operation(operation))
        finally:
            if request.cancel_on_disconnect and not ended:
                await uninterrupted(self._operations.cancel_if_known(request.operation_id))

    async def CancelOperation(
        self, request: operation_pb2.CancelOperationRequest, context: Context
    ) -> operation_pb2.CancelOperationResponse:
        operation = await self._operations.cancel(request.operation_id)
        return operation_pb2.CancelOperationResponse(operation=convert.operation(operation))
