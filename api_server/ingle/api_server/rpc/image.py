"""ImageService."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from ingle.api_server.host.context import current_operation
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Image
from ingle.api_server.model.warm import WarmMemory
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.save_image import SaveImage
from ingle.api_server.operations.warm_starts import Listed, WarmStarts
from ingle.api_server.rpc import convert, uploads, who
from ingle.api_server.rpc.paging import Key, by_time, page
from ingle.v1 import image_pb2, image_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class ImageServicer(image_pb2_grpc.ImageServiceServicer):
    """Images."""

    def __init__(self, operations: Operations, images: Images, save_image: SaveImage, warm_starts: WarmStarts) -> None:
        self._operations = operations
        self._save_image = save_image
        self._images = images
        self._warm_starts = warm_starts

    async def ListCatalogImages(
        self, request: image_pb2.ListCatalogImagesRequest, context: Context
    ) -> image_pb2.ListCatalogImagesResponse:
        here = {name for image in await self._images.all() for name in image.names}
        images, token = page(
            self._images.catalog(),
            lambda entry: (entry.name,),
            request,
            lambda entry: image_pb2.CatalogImage(
                name=entry.name, description=entry.description, present=entry.name in here
            ),
        )
        return image_pb2.ListCatalogImagesResponse(images=images, next_page_token=token)

    async def PullImage(self, request: image_pb2.PullImageRequest, context: Context) -> image_pb2.PullImageResponse:
        running = await self._pull(request, context)
        return image_pb2.PullImageResponse(image=self._convert(await running.result()))

    async def BeginPullImage(
        self, request: image_pb2.BeginPullImageRequest, context: Context
    ) -> image_pb2.BeginPullImageResponse:
        running = await self._pull(request, context)
        return image_pb2.BeginPullImageResponse(operation_id=running.operation.id)

    async def RegisterImage(
        self, request_iterator: AsyncIterator[image_pb2.RegisterImageRequest], context: Context
    ) -> image_pb2.RegisterImageResponse:
        start = (await uploads.first(request_iterator)).start
        caller = who.caller(context)
        sent = uploads.sparse_pieces(request_iterator)
        if start.archive:
            await self._images.check_archive(start.name, start.archived_as, start.source, caller)
        else:
            await self._images.check_sent(start.name, start.source, caller)

        async def work(progress: Progress) -> Image:
            if start.archive:
                return await self._images.load(start.name, start.archived_as, start.source, sent, progress, caller)
            return await self._images.register(start.name, start.source, sent, progress, caller)

        running = await self._operations.begin(
            current_operation.get(), caller.uid, OperationKind.REGISTER_IMAGE, work, start.name
        )
        return image_pb2.RegisterImageResponse(image=self._convert(await running.result()))

    async def SaveImage(self, request: image_pb2.SaveImageRequest, context: Context) -> image_pb2.SaveImageResponse:
        running = await self._save(request, context)
        return image_pb2.SaveImageResponse(image=self._convert(await running.result()))

    async def BeginSaveImage(
        self, request: image_pb2.BeginSaveImageRequest, context: Context
    ) -> image_pb2.BeginSaveImageResponse:
        running = await self._save(request, context)
        return image_pb2.BeginSaveImageResponse(operation_id=running.operation.id)

    async def ExportImage(
        self, request: image_pb2.ExportImageRequest, context: Context
    ) -> AsyncIterator[image_pb2.ExportImageResponse]:
        async with self._images.exported(request.image) as pieces:
            async for piece in pieces:
                yield image_pb2.ExportImageResponse(data=piece)

    async def GetImage(self, request: image_pb2.GetImageRequest, context: Context) -> image_pb2.GetImageResponse:
        return image_pb2.GetImageResponse(image=self._convert(await self._images.find(request.image)))

    async def ListImages(self, request: image_pb2.ListImagesRequest, context: Context) -> image_pb2.ListImagesResponse:
        images, token = page(await self._images.all(), by_time, request, self._convert)
        return image_pb2.ListImagesResponse(images=images, next_page_token=token)

    async def DeleteImage(
        self, request: image_pb2.DeleteImageRequest, context: Context
    ) -> image_pb2.DeleteImageResponse:
        image, caller = await self._images.get(request.image), who.caller(context)
        if request.name and await self._images.untag(image, request.name, caller):
            return image_pb2.DeleteImageResponse(untagged=True)
        running = await self._operations.begin(
            current_operation.get(),
            caller.uid,
            OperationKind.DELETE_IMAGE,
            lambda progress: self._images.delete(image, caller, progress.operation.id),
            image.id,
        )
        return image_pb2.DeleteImageResponse(stays=not await running.result())

    async def TagImage(self, request: image_pb2.TagImageRequest, context: Context) -> image_pb2.TagImageResponse:
        image = await self._images.tag(request.image, request.name, who.caller(context))
        return image_pb2.TagImageResponse(image=self._convert(image))

    async def PruneImageLayers(
        self, request: image_pb2.PruneImageLayersRequest, context: Context
    ) -> image_pb2.PruneImageLayersResponse:
        pruned = await self._images.prune_layers(who.caller(context), dry_run=request.dry_run)
        return image_pb2.PruneImageLayersResponse(blobs=pruned.blobs, bytes=pruned.bytes)

    async def PruneImages(
        self, request: image_pb2.PruneImagesRequest, context: Context
    ) -> image_pb2.PruneImagesResponse:
        caller = who.caller(context)
        told = {image.id: self._convert(image) for image in await self._images.unused(caller, named=request.all)}
        if not request.dry_run:
            running = await self._operations.begin(
                current_operation.get(),
                caller.uid,
                OperationKind.DELETE_IMAGE,
                lambda progress: self._images.prune(caller, progress.operation.id, named=request.all),
            )
            told = {image.id: told[image.id] for image in await running.result() if image.id in told}
        for image in told.values():  # they are not for anybody to run any more, and would be too much for one answer
            image.ClearField("config")
        return image_pb2.PruneImagesResponse(images=told.values())

    async def WarmImage(self, request: image_pb2.WarmImageRequest, context: Context) -> image_pb2.WarmImageResponse:
        running = await self._warm(request, context)
        made = await running.result()
        listed = await self._warm_starts.listed(who.caller(context))
        return image_pb2.WarmImageResponse(
            memory=next((convert.warm_memory(each) for each in listed if each.memory.key == made.key), None)
        )

    async def BeginWarmImage(
        self, request: image_pb2.BeginWarmImageRequest, context: Context
    ) -> image_pb2.BeginWarmImageResponse:
        running = await self._warm(request, context)
        return image_pb2.BeginWarmImageResponse(operation_id=running.operation.id)

    async def ListWarmMemories(
        self, request: image_pb2.ListWarmMemoriesRequest, context: Context
    ) -> image_pb2.ListWarmMemoriesResponse:
        listed = await self._warm_starts.listed(who.caller(context), all_users=request.all_users)
        memories, token = page(listed, _by_use, request, convert.warm_memory)
        return image_pb2.ListWarmMemoriesResponse(memories=memories, next_page_token=token)

    async def PruneWarmMemories(
        self, request: image_pb2.PruneWarmMemoriesRequest, context: Context
    ) -> image_pb2.PruneWarmMemoriesResponse:
        caller = who.caller(context)
        prune = self._warm_starts.prunable if request.dry_run else self._warm_starts.prune
        pruned = await prune(caller, usable=request.all)
        return image_pb2.PruneWarmMemoriesResponse(memories=map(convert.warm_memory, pruned))

    async def _warm(
        self, request: image_pb2.WarmImageRequest | image_pb2.BeginWarmImageRequest, context: Context
    ) -> Ongoing[WarmMemory]:
        spec = convert.vm_spec(request.spec)
        return await self._warm_starts.warm(current_operation.get(), who.caller(context), spec)

    async def _save(
        self, request: image_pb2.SaveImageRequest | image_pb2.BeginSaveImageRequest, context: Context
    ) -> Ongoing[Image]:
        return await self._save_image.begin(current_operation.get(), who.reference(context, request.vm), request.name)

    async def _pull(
        self, request: image_pb2.PullImageRequest | image_pb2.BeginPullImageRequest, context: Context
    ) -> Ongoing[Image]:
        caller = who.caller(context)
        self._images.check_pullable(request.name)
        logins = convert.logins(request.logins)
        return await self._operations.begin(
            current_operation.get(),
            caller.uid,
            OperationKind.PULL_IMAGE,
            lambda progress: self._images.fetch(request.name, logins, progress, caller, refresh=request.refresh),
            request.name,
        )

    def _convert(self, image: Image) -> image_pb2.Image:
        return convert.image(image, self._images.allocated_bytes(image))


def _by_use(listed: Listed) -> Key:
    return round(listed.memory.used_at.timestamp() * 1e6), listed.memory.key
