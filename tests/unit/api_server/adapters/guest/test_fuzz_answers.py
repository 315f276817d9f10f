"""Whatever a guest's agent says is an answer or an error of ours, with nothing between it and a caller left out."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from hostile_guest.agent import HELLO, MESSAGES, OPENINGS, frame, response
from hostile_guest.cases import CASES
from hostile_guest.server import PATIENCE, Guests
from hostile_guest.worst import PROFILES, Profile, worst
from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.guest.frames import PAYLOADS, Decoder, Frame, FrameError, FrameType
from ingle.api_server.adapters.vm_files import LocalVmFiles
from ingle.api_server.model.errors import IngleError
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.inspect_vm import InspectVm
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.operations.watch_health import WatchHealth
from ingle.api_server.rpc.guest import GuestServicer
from ingle.api_server.rpc.vm import VmServicer
from unit.api_server.calling import ADMITTED
from unit.api_server.vmms import VM, Shelf, StillClock
from unit.fuzzing import mutations

_LONG_SECONDS = 60
_FILE = agent_pb2.FileInfo(name="file", type=agent_pb2.FILE_TYPE_REGULAR, mode=0o644, links=1)
_SESSION = agent_pb2.Session(id="init", argv=["sh"], size=agent_pb2.TerminalSize(rows=24, columns=80))
_PORT = agent_pb2.ListeningPort(protocol=agent_pb2.PORT_PROTOCOL_TCP, address="::", port=80, command=["httpd"])
_BOOT = "01234567-89ab-cdef-0123-456789abcdef"
_GOOD = [
    agent_pb2.Response(ping=agent_pb2.PingResponse(boot_id=_BOOT, uptime_milliseconds=7)),
    agent_pb2.Response(stats=agent_pb2.StatsResponse(load_1m=0.5, cpus=2, interfaces=[agent_pb2.InterfaceStats()])),
    agent_pb2.Response(activity=agent_pb2.ActivityResponse(idle_milliseconds=5)),
    agent_pb2.Response(create_session=agent_pb2.CreateSessionResponse(session=_SESSION)),
    agent_pb2.Response(list_sessions=agent_pb2.ListSessionsResponse(sessions=[_SESSION] * 3)),
    agent_pb2.Response(list_ports=agent_pb2.ListPortsResponse(ports=[_PORT] * 3)),
    agent_pb2.Response(stat_file=agent_pb2.StatFileResponse(file=_FILE)),
    agent_pb2.Response(read_file=agent_pb2.ReadFileResponse(file=_FILE, next_offset=3)),
    agent_pb2.Response(list_directory=agent_pb2.ListDirectoryResponse(truncated=True, next_after="file")),
]
_DATA = frame(FrameType.DATA, b"some") + frame(FrameType.STDOUT, b"thing")


def _streams() -> Iterator[bytes]:
    for message in _GOOD:
        yield HELLO + frame(FrameType.RESPONSE, message.SerializeToString())
        yield HELLO + _DATA + frame(FrameType.DATA_END) + frame(FrameType.RESPONSE, message.SerializeToString())
    yield HELLO + frame(FrameType.ENTRIES, agent_pb2.DirectoryEntries(entries=[_FILE] * 5).SerializeToString())
    for operation, opening in OPENINGS.items():
        yield HELLO + opening + _DATA + frame(FrameType.EXITED)
        yield HELLO + opening + response(operation, b"")
    for profile in PROFILES.values():
        small = Profile(profile.number, profile.real, profile.text[:100], min(3, profile.times), 2000)
        for kind, message_type in MESSAGES.items():
            yield HELLO + frame(kind, worst(message_type.DESCRIPTOR, small))
        yield HELLO + frame(FrameType.RESPONSE, worst(agent_pb2.Response.DESCRIPTOR, small))
        for field in agent_pb2.Response.DESCRIPTOR.fields:
            yield HELLO + response(field.name, worst(field.message_type, small))


def _decoded(*pieces: bytes) -> tuple[list[Frame], str]:
    decoder, found = Decoder(), []
    for piece in pieces:
        rest = piece
        while rest:
            space = decoder.space()
            part, rest = rest[: len(space)], rest[len(space) :]
            space[: len(part)] = part
            try:
                for got in decoder.received(len(part)):
                    assert len(got.payload) in PAYLOADS[got.type]
                    found.append(got)
            except FrameError as error:
                return found, str(error)
    return found, ""


def test_fuzz_agent_frames() -> None:
    chance = random.Random(1)
    for stream in mutations(list(_streams())):
        cut = sorted(chance.randrange(len(stream) + 1) for _ in range(3))
        pieces = [stream[a:b] for a, b in zip([0, *cut], [*cut, len(stream)], strict=True)]
        assert _decoded(*pieces) == _decoded(stream)


class _Impostor:
    """Says what it is told to, once to each caller, and hangs up."""

    def __init__(self) -> None:
        self.says = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read(1)
            writer.write(self.says)
            await writer.drain()
        writer.close()


async def _requests(messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


async def _call(servicers: dict[str, Any], name: str) -> None:
    """The method as a caller has it, down to the bytes of its answers."""
    service, _, method = name.partition(".")
    messages = CASES[name].messages("agent")
    request: Any = _requests(messages) if len(messages) > 1 else messages[0]
    made = getattr(servicers[service], method)(request, ADMITTED)
    if hasattr(made, "__aiter__"):
        async for answer in made:
            answer.SerializeToString()
    else:
        (await made).SerializeToString()


async def _converse(directory: Path) -> None:
    impostor, guests, files = _Impostor(), Guests(directory), LocalVmFiles(directory, directory)
    store, absent = cast("Any", guests), cast("Any", None)
    guests.fleet = fleet = Fleet(store, store, files, absent)
    use = UseGuest(store, fleet, Dialler(PATIENCE))
    inspect = InspectVm(store, fleet, use, files, {VM.settings.disk_backend: Shelf()}, StillClock())
    health = WatchHealth(store, use, absent, StillClock())
    servicers = {
        "GuestService": GuestServicer(use, absent),
        "VmService": VmServicer(store, *(absent,) * 7, inspect, health, *(absent,) * 4),
    }
    by_steps = {"StartVm", "StopVm", "RestartVm", "HibernateVm", "ResumeVm", "CreateSnapshot"}
    names = sorted(name for name in CASES if name.partition(".")[-1] not in by_steps)
    chance = random.Random(1)
    async with await asyncio.start_unix_server(impostor.serve, directory / "agent"):
        for stream in mutations(list(_streams())):
            impostor.says = stream
            with suppress(IngleError):
                async with asyncio.timeout(_LONG_SECONDS):
                    await _call(servicers, chance.choice(names))


def test_fuzz_agent_answers(tmp_path: Path) -> None:
    asyncio.run(_converse(tmp_path))
