"""The part of the stand-in that knows images, kernels and snapshots: a few, which never change."""

# ruff: noqa: N802 - methods are named by the contract

from contract.cli.world import OP_ID, Context
from ingle.v1 import image_pb2, image_pb2_grpc, kernel_pb2, kernel_pb2_grpc, snapshot_pb2, snapshot_pb2_grpc


class ImageService(image_pb2_grpc.ImageServiceServicer):
    async def GetImage(self, request: image_pb2.GetImageRequest, context: Context) -> image_pb2.GetImageResponse:
        return image_pb2.GetImageResponse(image=image_pb2.Image(id="ab" * 32, names=[request.image]))

    async def DeleteImage(
        self, request: image_pb2.DeleteImageRequest, context: Context
    ) -> image_pb2.DeleteImageResponse:
        """Others have it too."""
        return image_pb2.DeleteImageResponse(stays=True)

    async def ListImages(self, request: image_pb2.ListImagesRequest, context: Context) -> image_pb2.ListImagesResponse:
        return image_pb2.ListImagesResponse(images=[image_pb2.Image(id="ab" * 32, names=["base", "debian:bookworm"])])

    async def ListCatalogImages(
        self, request: image_pb2.ListCatalogImagesRequest, context: Context
    ) -> image_pb2.ListCatalogImagesResponse:
        names = ("debian:bookworm", "debian:trixie")
        return image_pb2.ListCatalogImagesResponse(images=[image_pb2.CatalogImage(name=name) for name in names])

    async def BeginPullImage(
        self, request: image_pb2.BeginPullImageRequest, context: Context
    ) -> image_pb2.BeginPullImageResponse:
        return image_pb2.BeginPullImageResponse(operation_id=OP_ID)


class KernelService(kernel_pb2_grpc.KernelServiceServicer):
    async def ListKernels(
        self, request: kernel_pb2.ListKernelsRequest, context: Context
    ) -> kernel_pb2.ListKernelsResponse:
        return kernel_pb2.ListKernelsResponse(kernels=[kernel_pb2.Kernel(id="cd" * 32, names=["debian"])])


class SnapshotService(snapshot_pb2_grpc.SnapshotServiceServicer):
    async def ListSnapshots(
        self, request: snapshot_pb2.ListSnapshotsRequest, context: Context
    ) -> snapshot_pb2.ListSnapshotsResponse:
        return snapshot_pb2.ListSnapshotsResponse()
