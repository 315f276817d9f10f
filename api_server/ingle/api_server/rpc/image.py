"""ImageService."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Image
from ingle.api_server.operations.catalog import Images
from ingle.api_server.operations.runner import Operations, Running
from ingle.api_server.ports.store import Store
from ingle.api_server.rpc import convert, uploads
from ingle.v1 import image_pb2, image_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class ImageServicer(image_pb2_grpc.ImageServiceServicer):
    """Images."""

    def __init__(self, operations: Operations, store: Store, images: Images) -> None:
        self._operations = operations
        self._store = store
        self._images = images

    async def ListCatalogImages(
        self, request: image_pb2.ListCatalogImagesRequest, context: Context
    ) -> image_pb2.ListCatalogImagesResponse:
        here = {name for image in await self._store.images() for name in image.names}
        return image_pb2.ListCatalogImagesResponse(
            images=[
                image_pb2.CatalogImage(name=entry.name, description=entry.description, present=entry.name in here)
                for entry in self._images.catalog()
            ]
        )

    async def PullImage(self, request: image_pb2.PullImageRequest, context: Context) -> image_pb2.PullImageResponse:
        running = await self._pull(request)
        return image_pb2.PullImageResponse(image=self._convert(await running.result()))

    async def BeginPullImage(
        self, request: image_pb2.BeginPullImageRequest, context: Context
    ) -> image_pb2.BeginPullImageResponse:
        running = await self._pull(request)
        return image_pb2.BeginPullImageResponse(operation=convert.operation(running.operation))

    async def RegisterImage(
        self, request_iterator: AsyncIterator[image_pb2.RegisterImageRequest], context: Context
    ) -> image_pb2.RegisterImageResponse:
        start = (await uploads.first(request_iterator)).start
        self._images.check_sent(start.name, start.source)
        rootfs = uploads.sparse_pieces(request_iterator)
        running = await self._operations.begin(
            current_operation.get(),
            OperationKind.REGISTER_IMAGE,
            lambda progress: self._images.register(start.name, start.source, rootfs, progress),
            start.name,
        )
        return image_pb2.RegisterImageResponse(image=self._convert(await running.result()))

    async def GetImage(self, request: image_pb2.GetImageRequest, context: Context) -> image_pb2.GetImageResponse:
        return image_pb2.GetImageResponse(image=self._convert(await self._store.find_image(request.image)))

    async def ListImages(self, request: image_pb2.ListImagesRequest, context: Context) -> image_pb2.ListImagesResponse:
        images = await self._store.images()
        return image_pb2.ListImagesResponse(images=[self._convert(image) for image in images])

    async def DeleteImage(
        self, request: image_pb2.DeleteImageRequest, context: Context
    ) -> image_pb2.DeleteImageResponse:
        image = await self._store.image(request.image)
        running = await self._operations.begin(
            current_operation.get(), OperationKind.DELETE_IMAGE, lambda _: self._images.delete(image), image.id
        )
        await running.result()
        return image_pb2.DeleteImageResponse()

    async def PruneImages(
        self, request: image_pb2.PruneImagesRequest, context: Context
    ) -> image_pb2.PruneImagesResponse:
        told = {image.id: self._convert(image) for image in await self._images.unused()}
        if not request.dry_run:
            running = await self._operations.begin(
                current_operation.get(), OperationKind.DELETE_IMAGE, lambda _: self._images.prune()
            )
            told = {image.id: told[image.id] for image in await running.result() if image.id in told}
        return image_pb2.PruneImagesResponse(images=told.values())

    async def _pull(self, request: image_pb2.PullImageRequest | image_pb2.BeginPullImageRequest) -> Running[Image]:
        self._images.check_pullable(request.name)
        return await self._operations.begin(
            current_operation.get(),
            OperationKind.PULL_IMAGE,
            lambda progress: self._images.pull(request.name, progress, refresh=request.refresh),
            request.name,
        )

    def _convert(self, image: Image) -> image_pb2.Image:
        return convert.image(image, self._images.allocated_bytes(image))
