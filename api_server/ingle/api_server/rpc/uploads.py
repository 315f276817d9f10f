"""Uploads: a stream of requests that says `start`, then `data`, and at last `end`.

A stream that stops looks the same whether its caller has sent everything or has left: grpc ends the iterator normally,
and only later cancels the call. So silence is never taken for the end.
"""

from collections.abc import AsyncIterator, Collection
from typing import TypeVar

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.ports.sources import Piece
from ingle.v1 import guest_pb2, image_pb2, kernel_pb2, snapshot_pb2

Upload = guest_pb2.WriteFileRequest | guest_pb2.CopyInRequest | snapshot_pb2.ImportSnapshotRequest
"""Requests whose oneof `message` holds `start`, `data` and `end`."""

SparseUpload = image_pb2.RegisterImageRequest | kernel_pb2.ImportKernelRequest
"""Those that may hold a `hole` in the place of `data`."""

_U = TypeVar(
    "_U",
    guest_pb2.WriteFileRequest,
    guest_pb2.CopyInRequest,
    snapshot_pb2.ImportSnapshotRequest,
    image_pb2.RegisterImageRequest,
    kernel_pb2.ImportKernelRequest,
)
_A = TypeVar("_A", bound=Upload | SparseUpload)


async def first(requests: AsyncIterator[_U]) -> _U:
    """The message that says what the data is for. Raises InvalidArgument."""
    request = await anext(aiter(requests), None)
    if request is None or request.WhichOneof("message") != "start":
        raise InvalidArgument("the first message must be `start`")
    return request


async def pieces(requests: AsyncIterator[Upload]) -> AsyncIterator[bytes]:
    """The data behind `start`, up to `end`: who takes it all may commit it.

    Raises InvalidArgument when the stream stops without `end`."""
    async for request in _up_to_end(requests, {"data"}):
        yield request.data


async def sparse_pieces(requests: AsyncIterator[SparseUpload]) -> AsyncIterator[Piece]:
    """The same with holes."""
    async for request in _up_to_end(requests, {"data", "hole"}):
        yield Piece(request.hole.bytes, request.data)


async def _up_to_end(requests: AsyncIterator[_A], allowed: Collection[str]) -> AsyncIterator[_A]:
    async for request in requests:
        kind = request.WhichOneof("message")
        if kind == "end":
            return
        if kind not in allowed:
            raise InvalidArgument(f"message {kind or 'without content'} is not allowed after start")
        yield request
    raise InvalidArgument("the upload stopped without `end`: nothing is committed", "send `end` as the last message")
