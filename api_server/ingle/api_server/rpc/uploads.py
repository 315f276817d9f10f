"""Uploads: a stream of requests that says `start`, then `data`, and at last `end`.

A stream that stops looks the same whether its caller has sent everything or has left: grpc ends the iterator normally,
and only later cancels the call. So silence is never taken for the end.
"""

from collections.abc import AsyncIterator
from typing import TypeVar

from ingle.api_server.model.errors import InvalidArgument
from ingle.v1 import guest_pb2

Upload = guest_pb2.WriteFileRequest | guest_pb2.CopyInRequest
"""Requests whose oneof `message` holds `start`, `data` and `end`."""

_U = TypeVar("_U", guest_pb2.WriteFileRequest, guest_pb2.CopyInRequest)

_LARGEST_PIECE = 1024 * 1024


async def first(requests: AsyncIterator[_U]) -> _U:
    """The message that says what the data is for. Raises InvalidArgument."""
    request = await anext(aiter(requests), None)
    if request is None or request.WhichOneof("message") != "start":
        raise InvalidArgument("the first message must be `start`")
    return request


async def pieces(requests: AsyncIterator[Upload]) -> AsyncIterator[bytes]:
    """The data behind `start`, up to `end`: who takes it all may commit it.

    Raises InvalidArgument when the stream stops without `end`."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "data":
                if len(request.data) > _LARGEST_PIECE:
                    raise InvalidArgument(f"{len(request.data)} bytes of data at once; {_LARGEST_PIECE} is allowed")
                yield request.data
            case "end":
                return
            case other:
                raise InvalidArgument(f"message {other or 'without content'} is not allowed after start")
    raise InvalidArgument("the upload stopped without `end`: nothing is committed", "send `end` as the last message")
