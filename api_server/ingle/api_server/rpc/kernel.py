"""KernelService."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Kernel
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.runner import Ongoing, Operations
from ingle.api_server.rpc import convert, uploads, who
from ingle.api_server.rpc.paging import by_time, page
from ingle.v1 import kernel_pb2, kernel_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class KernelServicer(kernel_pb2_grpc.KernelServiceServicer):
    """Kernels."""

    def __init__(self, operations: Operations, kernels: Kernels) -> None:
        self._operations = operations
        self._kernels = kernels

    async def ListCatalogKernels(
        self, request: kernel_pb2.ListCatalogKernelsRequest, context: Context
    ) -> kernel_pb2.ListCatalogKernelsResponse:
        here = {name for kernel in await self._kernels.all() for name in kernel.names}
        kernels, token = page(
            self._kernels.catalog(),
            lambda entry: (entry.name,),
            request,
            lambda entry: kernel_pb2.CatalogKernel(
                name=entry.name, description=entry.description, present=entry.name in here
            ),
        )
        return kernel_pb2.ListCatalogKernelsResponse(kernels=kernels, next_page_token=token)

    async def PullKernel(
        self, request: kernel_pb2.PullKernelRequest, context: Context
    ) -> kernel_pb2.PullKernelResponse:
        running = await self._pull(request, context)
        return kernel_pb2.PullKernelResponse(kernel=convert.kernel(await running.result()))

    async def BeginPullKernel(
        self, request: kernel_pb2.BeginPullKernelRequest, context: Context
    ) -> kernel_pb2.BeginPullKernelResponse:
        running = await self._pull(request, context)
        return kernel_pb2.BeginPullKernelResponse(operation_id=running.operation.id)

    async def ImportKernel(
        self, request_iterator: AsyncIterator[kernel_pb2.ImportKernelRequest], context: Context
    ) -> kernel_pb2.ImportKernelResponse:
        start = (await uploads.first(request_iterator)).start
        caller = who.caller(context)
        await self._kernels.check_sent(start.name, start.source, caller)
        kernel = uploads.sparse_pieces(request_iterator)
        running = await self._operations.begin(
            current_operation.get(),
            caller.uid,
            OperationKind.IMPORT_KERNEL,
            lambda progress: self._kernels.register(start.name, start.source, kernel, progress, caller),
            start.name,
        )
        return kernel_pb2.ImportKernelResponse(kernel=convert.kernel(await running.result()))

    async def ListNeededModules(
        self, request: kernel_pb2.ListNeededModulesRequest, context: Context
    ) -> kernel_pb2.ListNeededModulesResponse:
        return kernel_pb2.ListNeededModulesResponse(names=self._kernels.needed_modules())

    async def GetKernel(self, request: kernel_pb2.GetKernelRequest, context: Context) -> kernel_pb2.GetKernelResponse:
        return kernel_pb2.GetKernelResponse(kernel=convert.kernel(await self._kernels.find(request.kernel)))

    async def ListKernels(
        self, request: kernel_pb2.ListKernelsRequest, context: Context
    ) -> kernel_pb2.ListKernelsResponse:
        kernels, token = page(await self._kernels.all(), by_time, request, convert.kernel)
        return kernel_pb2.ListKernelsResponse(kernels=kernels, next_page_token=token)

    async def DeleteKernel(
        self, request: kernel_pb2.DeleteKernelRequest, context: Context
    ) -> kernel_pb2.DeleteKernelResponse:
        kernel, caller = await self._kernels.get(request.kernel), who.caller(context)
        running = await self._operations.begin(
            current_operation.get(),
            caller.uid,
            OperationKind.DELETE_KERNEL,
            lambda progress: self._kernels.delete(kernel, caller, progress.operation.id),
            kernel.id,
        )
        return kernel_pb2.DeleteKernelResponse(stays=not await running.result())

    async def PruneKernels(
        self, request: kernel_pb2.PruneKernelsRequest, context: Context
    ) -> kernel_pb2.PruneKernelsResponse:
        caller = who.caller(context)
        told = {kernel.id: convert.kernel(kernel) for kernel in await self._kernels.unused(caller, named=request.all)}
        if not request.dry_run:
            running = await self._operations.begin(
                current_operation.get(),
                caller.uid,
                OperationKind.DELETE_KERNEL,
                lambda progress: self._kernels.prune(caller, progress.operation.id, named=request.all),
            )
            told = {kernel.id: told[kernel.id] for kernel in await running.result() if kernel.id in told}
        return kernel_pb2.PruneKernelsResponse(kernels=told.values())

    async def _pull(
        self, request: kernel_pb2.PullKernelRequest | kernel_pb2.BeginPullKernelRequest, context: Context
    ) -> Ongoing[Kernel]:
        caller = who.caller(context)
        self._kernels.check_pullable(request.name)
        return await self._operations.begin(
            current_operation.get(),
            caller.uid,
            OperationKind.PULL_KERNEL,
            lambda progress: self._kernels.pull(request.name, progress, caller, refresh=request.refresh),
            request.name,
        )
