"""A connection to an agent that carries content: one side sends much, the other says little.

Nothing is read before somebody asks for it, and then right into what is handed out; nothing sent is copied on the way
to the kernel. So a transfer goes at the pace of the slower side, and costs the server little more than the kernel's own
copies. What goes both ways at once, or is to be noticed while nobody asks, is for `connection`.
"""

import asyncio
import os
from contextlib import suppress
from typing import Self

from ingle.api_server.adapters.guest.address import describe, unreachable
from ingle.api_server.adapters.guest.answers import answer_within
from ingle.api_server.adapters.guest.frames import (
    HEADER_SIZE,
    MAX_PAYLOAD,
    Frame,
    FrameError,
    FrameType,
    decode_header,
    encode_header,
)
from ingle.api_server.adapters.guest.mux import Lines
from ingle.api_server.adapters.guest.patience import Patience
from ingle.api_server.adapters.guest.pipes import Pipe, pipe_to
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentAddress

_WITHIN = "it hung up in the middle of a frame"
_PIECE = 256 * 1024  # bytes handed out at most: larger ones come no faster
_SMALLEST_PIECE = 64 * 1024  # bytes handed out at least, if there are more in the frame: each costs its takers the same


class Transfer:
    """Frames to and from one agent. Made by `connect`; used by one reader and one writer."""

    def __init__(self, address: AgentAddress, pipe: Pipe, patience: Patience) -> None:
        self._address = address
        self._peer = describe(address)
        self._pipe = pipe
        self._patience = patience
        self._left = 0  # bytes of a DATA frame that were not asked for yet

    @classmethod
    async def connect(cls, address: AgentAddress, greeting: bytes, patience: Patience, lines: Lines) -> Self:
        """Connect and send the first bytes. Raises GuestError(GUEST_UNREACHABLE)."""
        try:
            transfer = cls(address, await pipe_to(address, lines), patience)
        except OSError as error:
            raise unreachable(describe(address), os.strerror(error.errno) if error.errno else str(error)) from error
        try:
            await transfer.send(greeting)
        except BaseException:
            transfer.close()
            raise
        return transfer

    async def send(self, data: bytes | memoryview) -> None:
        """Send encoded frames, or nowhere when the connection is gone: the reader is who learns that. Raises
        GuestError(GUEST_UNREACHABLE) when the guest takes none of it."""
        async with answer_within(self._address, self._patience.work_seconds):
            with suppress(OSError):
                await self._pipe.send(data)

    async def send_data(self, data: bytes) -> None:
        """Send DATA frames; returns when all is on its way, or the connection is gone."""
        rest = memoryview(data)
        while rest:
            payload, rest = rest[:MAX_PAYLOAD], rest[MAX_PAYLOAD:]
            header = encode_header(FrameType.DATA, len(payload))
            try:
                sent = self._pipe.send_now(header, payload)
            except OSError:
                return
            if sent < HEADER_SIZE:
                await self.send(header[sent:])
            if sent < HEADER_SIZE + len(payload):
                await self.send(payload[max(0, sent - HEADER_SIZE) :])

    async def receive(self) -> Frame:
        """The next frame; how long it may take to begin is the caller's to say. Raises GuestError: GUEST_UNREACHABLE at
        the end of the stream, GUEST_PROTOCOL for garbage."""
        kind, size = await self._header()
        return Frame(kind, await self._exactly(size))

    async def receive_data(self) -> bytes | Frame:
        """A piece of what DATA frames hold, or the next frame of another type. Raises what receive does."""
        if not self._left:
            async with answer_within(self._address, self._patience.work_seconds):
                kind, size = await self._header()
            if kind is not FrameType.DATA:
                return Frame(kind, await self._exactly(size))
            self._left = size
        size = min(self._left, _PIECE)
        async with answer_within(self._address, self._patience.frame_seconds):
            piece = await self._some(size)
        if len(piece) < min(size, _SMALLEST_PIECE):
            piece += await self._exactly(size - len(piece))
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Leave at once."""
        self._pipe.abort()

    async def _header(self) -> tuple[FrameType, int]:
        """The next frame's type, and the size of its payload."""
        await asyncio.sleep(0)  # a guest that always has something to say must not keep the loop from the others
        header = await self._some(HEADER_SIZE, "it hung up")
        if len(header) < HEADER_SIZE:
            header += await self._exactly(HEADER_SIZE - len(header))
        try:
            return decode_header(header)
        except FrameError as error:
            why = f"the guest's agent at {self._peer} sent garbage: {error}"
            raise GuestError(Reason.GUEST_PROTOCOL, why) from error

    async def _exactly(self, size: int) -> bytes:
        """So many bytes."""
        # Not a list of pieces: who sends byte by byte would make us hold much more than a frame.
        whole = bytearray(size)
        rest = memoryview(whole)
        async with answer_within(self._address, self._patience.frame_seconds):
            while rest:
                try:
                    got = await self._pipe.into(rest)
                except OSError as error:
                    raise unreachable(self._peer, str(error)) from error
                if got == 0:
                    raise unreachable(self._peer, _WITHIN)
                if rest := rest[got:]:
                    await asyncio.sleep(0)
        return bytes(whole)

    async def _some(self, size: int, end: str = _WITHIN) -> bytes:
        """Whatever has come, at least a byte and at most so many."""
        try:
            data = await self._pipe.some(size)
        except OSError as error:
            raise unreachable(self._peer, str(error)) from error
        if not data:
            raise unreachable(self._peer, end)
        return data
