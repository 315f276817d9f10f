"""Agents that answer every request with the worst that the protocol allows, each in a way of its own.

python -m hostile_guest.agent DIRECTORY: a socket for each way, of its name.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from google.protobuf.message import Message

from hostile_guest.worst import all_worst, varint
from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest.frames import MAX_PAYLOAD, PAYLOADS, FrameType

Attack = Callable[[str], Iterator[bytes]]
"""From the operation that was asked for to what is said, b"" being a pause. Behind the end it hangs, and stays."""

_PAUSE_SECONDS = 0.02
_DUMP = 64 * 1024

MESSAGES: Mapping[FrameType, type[Message]] = {
    FrameType.HELLO_OK: agent_pb2.HelloOk,
    FrameType.ERROR: agent_pb2.Error,
    FrameType.STARTED: agent_pb2.ExecStarted,
    FrameType.EXITED: agent_pb2.ExecExited,
    FrameType.WINDOW: agent_pb2.ExecWindow,
    FrameType.ATTACHED: agent_pb2.Session,
    FrameType.DETACHED: agent_pb2.SessionDetached,
    FrameType.ENTRIES: agent_pb2.DirectoryEntries,
    FrameType.CONNECTED: agent_pb2.ForwardConnected,
}
"""Of the frames that hold one; RESPONSE is of its operation."""

RAW = {FrameType.STDOUT, FrameType.STDERR, FrameType.SCROLLBACK, FrameType.DATA, FrameType.DATA_END}


def frame(kind: int, payload: bytes = b"", size: int | None = None) -> bytes:
    """A frame, also one that can't be; `size` is what its header tells of the payload."""
    length = 1 + (len(payload) if size is None else size)
    return length.to_bytes(4, "big") + bytes((kind,)) + payload


_SESSION = agent_pb2.Session(id="init", size=agent_pb2.TerminalSize(rows=24, columns=80))
_FILE = agent_pb2.FileInfo(name="file", type=agent_pb2.FILE_TYPE_REGULAR)
HELLO = frame(FrameType.HELLO_OK, agent_pb2.HelloOk(protocol_version=1).SerializeToString())
OPENINGS = {
    "exec": frame(FrameType.STARTED, agent_pb2.ExecStarted(pid=7).SerializeToString()),
    "attach_session": frame(FrameType.ATTACHED, _SESSION.SerializeToString()),
    "forward": frame(FrameType.CONNECTED, agent_pb2.ForwardConnected(address="::1").SerializeToString()),
}
"""What makes us believe that all is well, where more than one answer comes."""


def response(operation: str, content: bytes) -> bytes:
    """The answer of the right kind with any content."""
    field = agent_pb2.Response.DESCRIPTOR.fields_by_name.get(operation)
    if field is None:  # exec, attach_session: they have none
        return frame(FrameType.RESPONSE, content)
    return frame(FrameType.RESPONSE, (varint(field.number << 3 | 2) + varint(len(content)) + content)[:MAX_PAYLOAD])


def _forever(piece: bytes) -> Iterator[bytes]:
    """As much of it at a time as a read takes."""
    return itertools.repeat(piece * max(1, _DUMP // len(piece)))


def _endless(kind: FrameType, payload: bytes) -> Attack:
    return lambda operation: itertools.chain([HELLO + OPENINGS.get(operation, b"")], _forever(frame(kind, payload)))


def _said(*pieces: bytes) -> Attack:
    return lambda operation: iter(pieces)


def _drip(operation: str) -> Iterator[bytes]:
    yield HELLO + OPENINGS.get(operation, b"") + frame(FrameType.RESPONSE, size=MAX_PAYLOAD)
    while True:
        yield b"x"
        yield b""


def _drip_of_data(operation: str) -> Iterator[bytes]:
    yield HELLO + OPENINGS.get(operation, b"") + frame(FrameType.DATA, size=MAX_PAYLOAD)
    while True:
        yield b"x"
        yield b""


def _another_answer(operation: str) -> Iterator[bytes]:
    other = "sync" if operation != "sync" else "ping"
    yield HELLO + OPENINGS.get(operation, b"") + response(other, b"")


def _worst_response(profile: str) -> Attack:
    def attack(operation: str) -> Iterator[bytes]:
        field = agent_pb2.Response.DESCRIPTOR.fields_by_name.get(operation)
        message = agent_pb2.Error if field is None else type(getattr(agent_pb2.Response(), operation))
        end = frame(FrameType.DATA_END) if operation == "forward" else b""
        yield HELLO + OPENINGS.get(operation, b"") + end + response(operation, dict(all_worst(message))[profile])
        yield from _forever(frame(FrameType.STDOUT, b"after the end"))

    return attack


def _worst_frame(kind: FrameType, profile: str) -> Attack:
    """In the place of the first answer, or behind it; then what no agent sends, in case all was well so far."""
    payload = dict(all_worst(MESSAGES[kind]))[profile][: PAYLOADS[kind][-1]]
    if kind is FrameType.HELLO_OK:
        return _said(frame(kind, payload))
    first = kind in (FrameType.STARTED, FrameType.ATTACHED, FrameType.CONNECTED)
    said = frame(kind, payload) + frame(0)
    return lambda operation: iter([HELLO + (b"" if first else OPENINGS.get(operation, b"")) + said])


def attacks() -> dict[str, Attack]:
    """All ways, by name."""
    known: dict[str, Attack] = {
        "silence": _said(),
        "hello-alone": _said(HELLO),
        "half-a-hello": _said(HELLO[:-1]),
        "half-a-header": _said(HELLO + b"\0\0"),
        "half-a-frame": _said(HELLO + frame(FrameType.RESPONSE, bytes(100), size=MAX_PAYLOAD)),
        "half-of-the-data": _said(HELLO + frame(FrameType.DATA, bytes(100), size=MAX_PAYLOAD)),
        "another-protocol": _said(b"HTTP/1.1 200 OK\r\n\r\n"),
        "too-long-a-frame": _said(HELLO + frame(FrameType.RESPONSE, size=MAX_PAYLOAD + 1)),
        "no-length": lambda operation: itertools.chain([HELLO], _forever(bytes(5))),
        "noise": lambda operation: itertools.chain([HELLO], _forever(os.urandom(_DUMP))),
        "exited-before-started": _said(HELLO + frame(FrameType.EXITED)),
        "drip": _drip,
        "drip-of-data": _drip_of_data,
        "another-answer": _another_answer,
        **{f"unknown-{kind}": _said(HELLO + frame(kind)) for kind in (0, 4)},
    }
    for kind, sizes in PAYLOADS.items():
        known[f"endless-{kind.name}-empty"] = _endless(kind, b"")
        known[f"endless-{kind.name}-tiny"] = _endless(kind, b"\0")
        known[f"endless-{kind.name}-large"] = _endless(kind, b"x" * sizes[-1])
    for profile, _ in all_worst(agent_pb2.Response):
        known[f"response-{profile}"] = _worst_response(profile)
        for kind in MESSAGES:
            known[f"{kind.name}-{profile}"] = _worst_frame(kind, profile)
    return known


async def _serve(directory: Path) -> None:
    async with AsyncExitStack() as stack:
        for name, attack in attacks().items():
            await stack.enter_async_context(await asyncio.start_unix_server(_callback(attack), directory / name))
        print("ready", flush=True)  # noqa: T201 - who started it waits for this
        await asyncio.Event().wait()


def _callback(attack: Attack) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await _frame(reader)  # HELLO
            request = agent_pb2.Request.FromString(await _frame(reader))
            for piece in attack(request.WhichOneof("operation") or ""):
                writer.write(piece)
                if piece:
                    await writer.drain()
                else:
                    await asyncio.sleep(_PAUSE_SECONDS)
            while await reader.read(_DUMP):
                pass
        writer.close()

    return serve


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return (await reader.readexactly(size))[1:]


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
