"""KernelService."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Kernel
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.runner import Operations, Running
from ingle.api_server.ports.store import Store
from ingle.api_server.rpc import convert, uploads
from ingle.v1 import kernel_pb2, kernel_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class KernelServicer(kernel_pb2_grpc.KernelServiceServicer):
    """Kernels."""

    def __init__(self, operations: Operations, store: Store, kernels: Kernels) -> None:
        self._operations = operations
        self._store = store
        self._kernels = kernels

    async def ListCatalogKernels(
        self, request: kernel_pb2.ListCatalogKernelsRequest, context: Context
    ) -> kernel_pb2.ListCatalogKernelsResponse:
        here = {name for kernel in await self._store.kernels() for name in kernel.names}
        return kernel_pb2.ListCatalogKernelsResponse(
            kernels=[
                kernel_pb2.CatalogKernel(name=entry.name, description=entry.description, present=entry.name in here)
                for entry in self._kernels.catalog()
            ]
        )

    async def PullKernel(
        self, request: kernel_pb2.PullKernelRequest, context: Context
    ) -> kernel_pb2.PullKernelResponse:
        running = await self._pull(request)
        return kernel_pb2.PullKernelResponse(kernel=convert.kernel(await running.result()))

    async def BeginPullKernel(
        self, request: kernel_pb2.BeginPullKernelRequest, context: Context
    ) -> kernel_pb2.BeginPullKernelResponse:
        running = await self._pull(request)
        return kernel_pb2.BeginPullKernelResponse(operation=convert.operation(running.operation))

    async def ImportKernel(
        self, request_iterator: AsyncIterator[kernel_pb2.ImportKernelRequest], context: Context
    ) -> kernel_pb2.ImportKernelResponse:
        start = (await uploads.first(request_iterator)).start
        self._kernels.check_sent(start.name, start.source)
        kernel = uploads.sparse_pieces(request_iterator)
        running = await self._operations.begin(
            current_operation.get(),
            OperationKind.IMPORT_KERNEL,
            lambda progress: self._kernels.register(start.name, start.source, kernel, progress),
            start.name,
        )
        return kernel_pb2.ImportKernelResponse(kernel=convert.kernel(await running.result()))

    async def ListNeededModules(
        self, request: kernel_pb2.ListNeededModulesRequest, context: Context
    ) -> kernel_pb2.ListNeededModulesResponse:
        return kernel_pb2.ListNeededModulesResponse(names=self._kernels.needed_modules())

    async def GetKernel(self, request: kernel_pb2.GetKernelRequest, context: Context) -> kernel_pb2.GetKernelResponse:
        return kernel_pb2.GetKernelResponse(kernel=convert.kernel(await self._store.find_kernel(request.kernel)))

    async def ListKernels(
        self, request: kernel_pb2.ListKernelsRequest, context: Context
    ) -> kernel_pb2.ListKernelsResponse:
        kernels = await self._store.kernels()
        return kernel_pb2.ListKernelsResponse(kernels=[convert.kernel(kernel) for kernel in kernels])

    async def DeleteKernel(
        self, request: kernel_pb2.DeleteKernelRequest, context: Context
    ) -> kernel_pb2.DeleteKernelResponse:
        kernel = await self._store.kernel(request.kernel)
        running = await self._operations.begin(
            current_operation.get(), OperationKind.DELETE_KERNEL, lambda _: self._kernels.delete(kernel), kernel.id
        )
        await running.result()
        return kernel_pb2.DeleteKernelResponse()

    async def PruneKernels(
        self, request: kernel_pb2.PruneKernelsRequest, context: Context
    ) -> kernel_pb2.PruneKernelsResponse:
        told = {kernel.id: convert.kernel(kernel) for kernel in await self._kernels.unused()}
        if not request.dry_run:
            running = await self._operations.begin(
                current_operation.get(), OperationKind.DELETE_KERNEL, lambda _: self._kernels.prune()
            )
            told = {kernel.id: told[kernel.id] for kernel in await running.result() if kernel.id in told}
        return kernel_pb2.PruneKernelsResponse(kernels=told.values())

    async def _pull(self, request: kernel_pb2.PullKernelRequest | kernel_pb2.BeginPullKernelRequest) -> Running[Kernel]:
        self._kernels.check_pullable(request.name)
        return await self._operations.begin(
            current_operation.get(),
            OperationKind.PULL_KERNEL,
            lambda progress: self._kernels.pull(request.name, progress, refresh=request.refresh),
            request.name,
        )
