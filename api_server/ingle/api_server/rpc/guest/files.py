"""The part of GuestService that is about files."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Protocol, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest_files import LARGEST_PAGE, FileInfo, FileType, ReadEnd, ReadSpec, WriteSpec
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.rpc import uploads, who
from ingle.api_server.rpc.paging import MOST_BYTES
from ingle.v1 import guest_pb2, guest_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"

_TYPES: Mapping[FileType, guest_pb2.FileType.ValueType] = {
    kind: guest_pb2.FileType.Value(f"FILE_TYPE_{kind.name}") for kind in FileType
}
_LARGEST_MODE = 0o7777
_ENTRIES_A_TURN = 200  # of a listing, before the event loop may turn to others


class FileMethods(guest_pb2_grpc.GuestServiceServicer):
    """Files in guests."""

    _guests: UseGuest

    async def ReadFile(
        self, request: guest_pb2.ReadFileRequest, context: Context
    ) -> AsyncIterator[guest_pb2.ReadFileResponse]:
        spec = ReadSpec(_path(request), request.offset, request.max_bytes, request.max_lines, request.user)
        async with (
            self._guests.look(who.reference(context, request.vm)) as channel,
            aclosing(channel.files.read(spec)) as events,
        ):
            async for event in events:
                if isinstance(event, ReadEnd):
                    end = guest_pb2.ReadFileEnd(
                        file=_file_info(event.file), truncated=event.truncated, next_offset=event.next_offset
                    )
                    yield guest_pb2.ReadFileResponse(end=end)
                else:
                    yield guest_pb2.ReadFileResponse(data=event)

    async def WriteFile(
        self, request_iterator: AsyncIterator[guest_pb2.WriteFileRequest], context: Context
    ) -> guest_pb2.WriteFileResponse:
        start = (await uploads.first(request_iterator)).start
        mode = _mode(start.mode) if start.HasField("mode") else None
        spec = WriteSpec(_path(start), mode, start.owner, start.parents, start.append, start.user)
        async with self._guests.use(who.reference(context, start.vm)) as channel:
            info = await channel.files.write(spec, uploads.pieces(request_iterator))
        return guest_pb2.WriteFileResponse(file=_file_info(info))

    async def StatFile(self, request: guest_pb2.StatFileRequest, context: Context) -> guest_pb2.StatFileResponse:
        path = _path(request)
        async with self._guests.look(who.reference(context, request.vm)) as channel:
            info = await channel.files.stat(path, follow=request.follow, user=request.user)
        return guest_pb2.StatFileResponse(file=_file_info(info))

    async def ListDirectory(
        self, request: guest_pb2.ListDirectoryRequest, context: Context
    ) -> guest_pb2.ListDirectoryResponse:
        if request.page_size > LARGEST_PAGE:
            raise InvalidArgument(
                f"page_size {request.page_size}: at most {LARGEST_PAGE} is allowed", field="page_size"
            )
        path, size = _path(request), request.page_size
        while True:
            async with self._guests.look(who.reference(context, request.vm)) as channel:
                listing = await channel.files.list(path, after=request.page_token, max_entries=size, user=request.user)
            response = guest_pb2.ListDirectoryResponse(next_page_token=listing.next_after if listing.truncated else "")
            for start in range(0, len(listing.entries), _ENTRIES_A_TURN):
                response.entries.extend(map(_file_info, listing.entries[start : start + _ENTRIES_A_TURN]))
                await asyncio.sleep(0)
            # Thousands of names as long as they may be: fewer fit. Only the agent can say where a page ends.
            if (told := response.ByteSize()) <= MOST_BYTES or size == 1:
                return response
            size = max(1, len(listing.entries) * MOST_BYTES // told * 9 // 10)

    async def MakeDirectory(
        self, request: guest_pb2.MakeDirectoryRequest, context: Context
    ) -> guest_pb2.MakeDirectoryResponse:
        path, mode = _path(request), _mode(request.mode) if request.HasField("mode") else None
        async with self._guests.use(who.reference(context, request.vm)) as channel:
            info = await channel.files.make_directory(
                path, mode=mode, owner=request.owner, parents=request.parents, user=request.user
            )
        return guest_pb2.MakeDirectoryResponse(file=_file_info(info))

    async def Remove(self, request: guest_pb2.RemoveRequest, context: Context) -> guest_pb2.RemoveResponse:
        path = _path(request)
        async with self._guests.use(who.reference(context, request.vm)) as channel:
            await channel.files.remove(path, recursive=request.recursive, user=request.user)
        return guest_pb2.RemoveResponse()

    async def Rename(self, request: guest_pb2.RenameRequest, context: Context) -> guest_pb2.RenameResponse:
        path, new_path = _path(request), _checked(request.new_path, request.raw_new_path)
        async with self._guests.use(who.reference(context, request.vm)) as channel:
            await channel.files.rename(path, new_path, replace=request.replace, user=request.user)
        return guest_pb2.RenameResponse()

    async def CopyIn(
        self, request_iterator: AsyncIterator[guest_pb2.CopyInRequest], context: Context
    ) -> guest_pb2.CopyInResponse:
        start = (await uploads.first(request_iterator)).start
        path, name = _path(start), start.name
        if b"/" in name or b"\0" in name or name in {b".", b".."}:
            raise InvalidArgument(
                f"name {name.decode(errors='replace')!r}: it must be that of a file in `path`", field="name"
            )
        pieces, owners = uploads.pieces(request_iterator), start.preserve_owners
        async with self._guests.use(who.reference(context, start.vm)) as channel:
            copied = await channel.files.copy_in(path, pieces, name=name, preserve_owners=owners, user=start.user)
        return guest_pb2.CopyInResponse(
            entries=copied.entries, bytes=copied.bytes, attributes_left_out=copied.attributes_left_out
        )

    async def CopyOut(
        self, request: guest_pb2.CopyOutRequest, context: Context
    ) -> AsyncIterator[guest_pb2.CopyOutResponse]:
        path = _path(request)
        async with self._guests.look(who.reference(context, request.vm)) as channel:
            archive = channel.files.copy_out(path, contents=request.contents, user=request.user)
            async with aclosing(archive) as events:
                async for event in events:
                    if isinstance(event, bytes):
                        yield guest_pb2.CopyOutResponse(data=event)
                    else:
                        end = guest_pb2.CopyOutEnd(
                            entries=event.entries, bytes=event.bytes, attributes_left_out=event.attributes_left_out
                        )
                        yield guest_pb2.CopyOutResponse(end=end)


class _OfPath(Protocol):
    """A request about a file."""

    path: str
    raw_path: bytes


def _path(request: _OfPath) -> str:
    return _checked(request.path, request.raw_path)


def _checked(text: str, raw: bytes) -> str:
    """A path as Python has those of files: bytes that are no UTF-8 are lone surrogates."""
    path = raw.decode(errors="surrogateescape") or text
    if not path or "\0" in path:
        raise InvalidArgument(f"path {path!r}: it must not be empty, nor hold a NUL", field="path")
    return path


def _mode(mode: int) -> int:
    if mode > _LARGEST_MODE:
        raise InvalidArgument(f"mode {mode:04o}: at most {_LARGEST_MODE:04o} is allowed", field="mode")
    return mode


def _file_info(info: FileInfo) -> guest_pb2.FileInfo:
    seconds, nanos = divmod(info.modified_nanoseconds, 10**9)
    return guest_pb2.FileInfo(
        name=info.name,
        type=_TYPES[info.type],
        mode=info.mode,
        uid=info.uid,
        gid=info.gid,
        size_bytes=info.size_bytes,
        modified_at=Timestamp(seconds=seconds, nanos=nanos),
        link_target=info.link_target,
        links=info.links,
        raw_name=info.raw_name,
        raw_link_target=info.raw_link_target,
    )
