"""GuestFiles over the agent protocol: content as DATA frames, at the pace of the slower side."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypedDict

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import messages
from ingle.api_server.adapters.guest.answers import (
    answer_within,
    hello,
    next_frame,
    response,
    unless_error,
)
from ingle.api_server.adapters.guest.file_messages import check_next, file_info, file_infos
from ingle.api_server.adapters.guest.frames import Frame, FrameType, encode
from ingle.api_server.adapters.guest.mux import Lines
from ingle.api_server.adapters.guest.patience import Patience
from ingle.api_server.adapters.guest.transfer import Transfer
from ingle.api_server.model.guest import AgentAddress
from ingle.api_server.model.guest_files import (
    LARGEST_PAGE,
    Copied,
    FileInfo,
    Listing,
    ReadEnd,
    ReadSpec,
    WriteSpec,
)

_LARGEST_PAGE_BYTES = 3 * 1024 * 1024  # an agent ends a page behind the second megabyte


class Files:
    """GuestFiles of one agent. `greeting` is what a connection begins with to make a request."""

    def __init__(
        self, address: AgentAddress, greeting: Callable[[agent_pb2.Request], bytes], patience: Patience, lines: Lines
    ) -> None:
        self._address = address
        self._lines = lines
        self._greeting = greeting
        self._patience = patience

    async def read(self, spec: ReadSpec) -> AsyncGenerator[bytes | ReadEnd, None]:
        request = agent_pb2.ReadFileRequest(
            **_place(spec.path), offset=spec.offset, max_bytes=spec.max_bytes, max_lines=spec.max_lines, user=spec.user
        )
        async with self._begin(agent_pb2.Request(read_file=request)) as transfer:
            while isinstance(piece := await transfer.receive_data(), bytes):
                yield piece
            end = response(unless_error(piece), "read_file").read_file
            yield ReadEnd(file_info(end.file), end.truncated, end.next_offset)

    async def write(self, spec: WriteSpec, data: AsyncIterable[bytes]) -> FileInfo:
        request = agent_pb2.WriteFileRequest(
            **_place(spec.path),
            mode=spec.mode,
            owner=spec.owner,
            parents=spec.parents,
            append=spec.append,
            user=spec.user,
        )
        answer = await self._upload(agent_pb2.Request(write_file=request), "write_file", data)
        return file_info(answer.write_file.file)

    async def stat(self, path: str, *, follow: bool = False, user: str = "") -> FileInfo:
        request = agent_pb2.StatFileRequest(**_place(path), follow=follow, user=user)
        answer = await self._ask(agent_pb2.Request(stat_file=request), "stat_file", self._patience.answer_seconds)
        return file_info(answer.stat_file.file)

    async def list(self, path: str, *, after: str = "", max_entries: int = 0, user: str = "") -> Listing:
        request = agent_pb2.ListDirectoryRequest(**_place(path), after=after, max_entries=max_entries, user=user)
        async with (
            answer_within(self._address, self._patience.answer_seconds),
            self._begin(agent_pb2.Request(list_directory=request)) as transfer,
        ):
            entries, frame = await _page(transfer)
        end = response(frame, "list_directory").list_directory
        if end.truncated:
            check_next(after, end.next_after)
        return Listing(tuple(entries), end.truncated, end.next_after)

    async def make_directory(
        self, path: str, *, mode: int | None = None, owner: str = "", parents: bool = False, user: str = ""
    ) -> FileInfo:
        request = agent_pb2.MakeDirectoryRequest(**_place(path), mode=mode, owner=owner, parents=parents, user=user)
        answer = await self._ask(
            agent_pb2.Request(make_directory=request), "make_directory", self._patience.answer_seconds
        )
        return file_info(answer.make_directory.file)

    async def remove(self, path: str, *, recursive: bool = False, user: str = "") -> None:
        request = agent_pb2.RemoveRequest(**_place(path), recursive=recursive, user=user)
        await self._ask(agent_pb2.Request(remove=request), "remove", self._patience.work_seconds)

    async def rename(self, path: str, new_path: str, *, replace: bool = False, user: str = "") -> None:
        request = agent_pb2.RenameRequest(**_place(path), replace=replace, user=user)
        target = _place(new_path)
        request.new_path, request.raw_new_path = target.get("path", ""), target.get("raw_path", b"")
        await self._ask(agent_pb2.Request(rename=request), "rename", self._patience.answer_seconds)

    async def copy_in(
        self,
        path: str,
        archive: AsyncIterable[bytes],
        *,
        name: bytes = b"",
        preserve_owners: bool = False,
        user: str = "",
    ) -> Copied:
        request = agent_pb2.CopyInRequest(**_place(path), name=name, preserve_owners=preserve_owners, user=user)
        answer = await self._upload(agent_pb2.Request(copy_in=request), "copy_in", archive)
        copied = answer.copy_in
        return Copied(copied.entries, copied.bytes, copied.attributes_left_out)

    async def copy_out(
        self, path: str, *, contents: bool = False, user: str = ""
    ) -> AsyncGenerator[bytes | Copied, None]:
        request = agent_pb2.CopyOutRequest(**_place(path), user=user, contents=contents)
        async with self._begin(agent_pb2.Request(copy_out=request)) as transfer:
            while isinstance(piece := await transfer.receive_data(), bytes):
                yield piece
            end = response(unless_error(piece), "copy_out").copy_out
            yield Copied(end.entries, end.bytes, end.attributes_left_out)

    async def _ask(self, request: agent_pb2.Request, result: str, seconds: float) -> agent_pb2.Response:
        async with answer_within(self._address, seconds), self._begin(request) as transfer:
            return response(await next_frame(transfer), result)

    async def _upload(self, request: agent_pb2.Request, result: str, data: AsyncIterable[bytes]) -> agent_pb2.Response:
        """Send it all, without waiting to be greeted, and take the answer, which comes early when the agent refuses."""
        async with answer_within(self._address, self._patience.start_seconds):
            transfer = await Transfer.connect(self._address, self._greeting(request), self._patience, self._lines)
        try:
            sender = asyncio.create_task(_send(transfer, data))
            answer = asyncio.create_task(self._answer(transfer))
            try:
                await asyncio.wait({sender, answer}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    await sender  # raises what kept the data from coming; then the agent never sees its end
                async with answer_within(self._address, self._patience.work_seconds):
                    return response(await answer, result)
            finally:
                sender.cancel()
                answer.cancel()
                await asyncio.gather(sender, answer, return_exceptions=True)
        finally:
            transfer.close()

    async def _answer(self, transfer: Transfer) -> Frame:
        async with answer_within(self._address, self._patience.start_seconds):
            await hello(transfer)
        return await next_frame(transfer)

    @asynccontextmanager
    async def _begin(self, request: agent_pb2.Request) -> AsyncIterator[Transfer]:
        """A connection on which the agent has taken the request; closed at the end."""
        transfer: Transfer | None = None
        try:
            async with answer_within(self._address, self._patience.start_seconds):
                transfer = await Transfer.connect(self._address, self._greeting(request), self._patience, self._lines)
                await hello(transfer)
            yield transfer
        finally:
            if transfer is not None:
                transfer.close()


async def _send(transfer: Transfer, data: AsyncIterable[bytes]) -> None:
    async for piece in data:
        await transfer.send_data(piece)
    await transfer.send(encode(FrameType.DATA_END))


async def _page(transfer: Transfer) -> tuple[list[FileInfo], Frame]:
    """All entries, and the frame behind them."""
    entries: list[FileInfo] = []
    size, ended = 0, False
    while (frame := await next_frame(transfer)).type is FrameType.ENTRIES:
        size += len(frame.payload)
        if ended or size > _LARGEST_PAGE_BYTES:
            raise messages.nonsense("entries without end")
        batch = messages.parse(agent_pb2.DirectoryEntries, frame.payload).entries
        if len(entries) + len(batch) > LARGEST_PAGE:
            raise messages.nonsense(f"more than {LARGEST_PAGE} entries at once")
        entries += await file_infos(batch)
        ended = not batch  # only the last one may be empty
    return entries, frame


class _Place(TypedDict, total=False):
    """Fields of a request."""

    path: str
    raw_path: bytes


def _place(path: str) -> _Place:
    """A path in the field that can hold it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return {"raw_path": path.encode(errors="surrogateescape")}
    return {"path": path}
