"""A caller that vanishes in the middle of a stream, at each point and in each way: silence is never taken for the end.

Real gRPC to a real agent: its files and processes are this host's."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.agent.conftest import Agent, Gone
from contract.one_vm import OneVm, behind_a_gate, new_server
from contract.surface_text import compiled_files
from harness import refusal
from ingle.api_server.model.guest import GuestSession, SessionProgram
from ingle.api_server.rpc import interceptors
from ingle.api_server.rpc.calls import Calls
from ingle.v1 import guest_pb2, guest_pb2_grpc
from ingle.v1.upload_pb2 import UploadEnd

_SECONDS = 20
_OLD = b"old\n" * 1000
_PIECE = b"new\n" * 50_000


@dataclass(frozen=True)
class Api:
    """A server, and connections to it that a test may drop."""

    address: str
    calls: Calls

    def connect(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=(("grpc.use_local_subchannel_pool", 1),))

    async def idle(self) -> None:
        """Return when the server has seen every call end."""
        assert await self.calls.ended(_SECONDS)


@pytest.fixture
async def api(agent: Agent, tmp_path: Path) -> AsyncIterator[Api]:
    interceptor = interceptors.CallInterceptor()
    async with behind_a_gate(new_server(OneVm(str(agent.path)), interceptor), tmp_path) as address:
        yield Api(address, interceptor.calls)


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A directory of the guest's."""
    (tmp_path / "guest").mkdir()
    return tmp_path / "guest"


def test_every_method_whose_caller_streams_has_a_test_in_which_it_leaves() -> None:
    streaming = {
        method.name
        for file in compiled_files()
        for service in file.service
        for method in service.method
        if method.client_streaming
    }
    here = {"WriteFile", "CopyIn", "Exec", "AttachSession", "Forward"}
    in_test_sent_images = {"RegisterImage", "ImportKernel"}
    in_test_snapshot_transfer = {"ImportSnapshot"}
    assert streaming == here | in_test_sent_images | in_test_snapshot_transfer


Leave = Callable[[Any, grpc.aio.Channel], Awaitable[None]]


async def _cancel(call: Any, _channel: grpc.aio.Channel) -> None:
    call.cancel()


async def _close(_call: Any, channel: grpc.aio.Channel) -> None:
    await channel.close()


async def _half_close(call: Any, _channel: grpc.aio.Channel) -> None:
    await call.done_writing()


async def _deadline(call: Any, _channel: grpc.aio.Channel) -> None:
    await call.code()  # it has one, of half a second


WAYS: dict[str, Leave] = {"cancel": _cancel, "close": _close, "half-close": _half_close, "deadline": _deadline}


# The last one: a deadline that came while the caller still spoke, on a busy machine.
_LEFT = (grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError)


async def _say_and_leave(
    call: Any, channel: grpc.aio.Channel, way: str, requests: Sequence[object], answers: int = 1
) -> None:
    """Say these to a server that has begun with the call and, of a stream, has given its first answers; leave; and see
    how the call ends."""
    await call.initial_metadata()
    for number, request in enumerate(requests):
        await call.write(request)
        for _ in range(answers if number == 0 and hasattr(call, "read") else 0):
            await call.read()
    await WAYS[way](call, channel)
    if not hasattr(call, "read"):
        await call
        return
    while await call.read() is not grpc.aio.EOF:
        pass


def _timeout(way: str) -> float | None:
    return 0.5 if way == "deadline" else None


def _write_requests(path: Path, *, append: bool) -> list[Any]:
    start = guest_pb2.WriteFileStart(vm="web", path=str(path), append=append)
    return [guest_pb2.WriteFileRequest(start=start), *[guest_pb2.WriteFileRequest(data=_PIECE)] * 4]


def _archive(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("append", [False, True], ids=["replace", "append"])
@pytest.mark.parametrize("sent", [0, 1, 3, 5], ids=["before start", "after start", "amid data", "before end"])
async def test_a_file_stays_as_it_was_when_its_writer_leaves(
    api: Api, guest: Path, way: str, append: bool, sent: int
) -> None:
    path = guest / "file"
    path.write_bytes(_OLD)
    channel = api.connect()
    call = guest_pb2_grpc.GuestServiceStub(channel).WriteFile(timeout=_timeout(way))
    with pytest.raises(_LEFT):
        await _say_and_leave(call, channel, way, _write_requests(path, append=append)[:sent])
    await api.idle()
    await _only(guest, "file")
    assert path.read_bytes() == _OLD
    await channel.close()


@pytest.mark.parametrize("append", [False, True], ids=["write", "append"])
async def test_no_file_is_made_when_its_writer_leaves(api: Api, guest: Path, append: bool) -> None:
    async with api.connect() as channel:
        call = guest_pb2_grpc.GuestServiceStub(channel).WriteFile()
        for request in _write_requests(guest / "file", append=append):
            await call.write(request)
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
    assert refusal(raised.value).reason == "INVALID_ARGUMENT"
    await api.idle()
    await _only(guest)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("point", ["before start", "after start", "amid a file", "before end"])
async def test_an_archive_replaces_whole_files_alone_when_its_sender_leaves(
    api: Api, guest: Path, way: str, point: str
) -> None:
    archive = _archive(("first", _PIECE), ("second", _PIECE))
    for name in ("first", "second"):
        (guest / name).write_bytes(_OLD)
    start = guest_pb2.CopyInRequest(start=guest_pb2.CopyInStart(vm="web", path=str(guest)))
    sent = {"before start": None, "after start": 0, "amid a file": len(archive) * 3 // 4, "before end": len(archive)}
    channel = api.connect()
    call = guest_pb2_grpc.GuestServiceStub(channel).CopyIn(timeout=_timeout(way))
    most = sent[point]
    requests = [] if most is None else [start, guest_pb2.CopyInRequest(data=archive[:most])]
    with pytest.raises(_LEFT):
        await _say_and_leave(call, channel, way, requests)
    await api.idle()
    await _only(guest, "first", "second")
    assert (guest / "first").read_bytes() in {_OLD, _PIECE}
    assert (guest / "second").read_bytes() in ({_OLD, _PIECE} if point == "before end" else {_OLD})
    await channel.close()


async def test_a_file_is_replaced_and_appended_to_by_who_says_the_end(api: Api, guest: Path) -> None:
    path = guest / "file"
    async with api.connect() as channel:
        stub = guest_pb2_grpc.GuestServiceStub(channel)
        for append, content in ((False, _PIECE * 4), (True, _PIECE * 8)):
            call = stub.WriteFile()
            for request in [*_write_requests(path, append=append), guest_pb2.WriteFileRequest(end=UploadEnd())]:
                await call.write(request)
            assert (await call).file.size_bytes == len(content)  # the end was said: the stream need not stop
            assert path.read_bytes() == content
    await _only(guest, "file")


_SAYS_EOF = "echo $$ >pid; echo begun; cat >seen; echo saw the end >eof"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sent", [0, 1, 3], ids=["before start", "after start", "before stdin_eof"])
async def test_a_command_whose_caller_leaves_is_killed_and_sees_no_end_of_input(
    api: Api, guest: Path, gone: Gone, way: str, sent: int
) -> None:
    argv = ["sh", "-c", _SAYS_EOF]
    start = guest_pb2.ExecStart(vm="web", argv=argv, open_stdin=True, working_directory=str(guest))
    requests = [guest_pb2.ExecRequest(start=start), *[guest_pb2.ExecRequest(stdin_data=b"some\n")] * 2]
    channel = api.connect()
    call = guest_pb2_grpc.GuestServiceStub(channel).Exec(timeout=_timeout(way))
    with pytest.raises(_LEFT):
        await _say_and_leave(call, channel, way, requests[:sent], answers=2)
    await api.idle()
    if (guest / "pid").exists() and (pid := (guest / "pid").read_text()):
        await gone(int(pid))
    assert not (guest / "eof").exists()
    await channel.close()


async def test_a_caller_without_stdin_may_say_nothing_more(api: Api) -> None:
    async with api.connect() as channel:
        start = guest_pb2.ExecStart(vm="web", argv=["sh", "-c", "sleep 0.2; cat; exit 7"])
        responses = guest_pb2_grpc.GuestServiceStub(channel).Exec(iter([guest_pb2.ExecRequest(start=start)]))
        assert [response async for response in responses][-1].exited.exit_code == 7


@pytest.mark.parametrize("way", ["cancel", "close", "deadline"])
@pytest.mark.parametrize("sent", [0, 1, 2], ids=["before start", "after start", "amid input"])
async def test_a_session_whose_viewer_leaves_goes_on_without_one(api: Api, agent: Agent, way: str, sent: int) -> None:
    guest_channel = agent.channel()
    session = await guest_channel.create_session("", SessionProgram(("cat",)))
    try:
        start = guest_pb2.AttachSessionStart(vm="web", session_id=session.id)
        requests = [
            guest_pb2.AttachSessionRequest(start=start),
            guest_pb2.AttachSessionRequest(input=b"half a line"),
        ]
        channel = api.connect()
        call = guest_pb2_grpc.GuestServiceStub(channel).AttachSession(timeout=_timeout(way))
        with pytest.raises(_LEFT):
            await _say_and_leave(call, channel, way, requests[:sent])
        await api.idle()
        async with asyncio.timeout(_SECONDS):
            while _named(await guest_channel.list_sessions(), session.id).attached:
                await asyncio.sleep(0.005)
        await channel.close()
    finally:
        await guest_channel.kill_session(session.id)


async def test_a_viewer_who_says_nothing_more_looks_on(api: Api) -> None:
    program = guest_pb2.SessionProgram(argv=["sh", "-c", "sleep 0.3; echo said later; exit 7"])
    start = guest_pb2.AttachSessionStart(vm="web", create=program)
    async with api.connect() as channel:
        requests = iter([guest_pb2.AttachSessionRequest(start=start)])
        responses = [response async for response in guest_pb2_grpc.GuestServiceStub(channel).AttachSession(requests)]
    assert b"said later" in b"".join(response.output for response in responses)
    assert responses[-1].exited.exit_code == 7


def _named(sessions: tuple[GuestSession, ...], session_id: str) -> GuestSession:
    return next(session for session in sessions if session.id == session_id)


@pytest.mark.parametrize("way", ["cancel", "close", "deadline"])
@pytest.mark.parametrize("sent", [0, 1, 2], ids=["before start", "after start", "amid data"])
async def test_a_server_whose_caller_leaves_sees_a_broken_connection_and_no_end(api: Api, way: str, sent: int) -> None:
    accepted, ends = asyncio.Event(), asyncio.Queue[BaseException | None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        try:
            await reader.read()
        except ConnectionResetError as error:
            ends.put_nowait(error)
        else:
            ends.put_nowait(None)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        target = guest_pb2.TcpTarget(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        start = guest_pb2.ForwardStart(vm="web", tcp=target)
        requests = [guest_pb2.ForwardRequest(start=start), guest_pb2.ForwardRequest(data=b"half a request")]
        channel = api.connect()
        call = guest_pb2_grpc.GuestServiceStub(channel).Forward(timeout=_timeout(way))
        with pytest.raises(_LEFT):
            await _say_and_leave(call, channel, way, requests[:sent])
        await api.idle()
        if accepted.is_set():
            async with asyncio.timeout(_SECONDS):
                assert isinstance(await ends.get(), ConnectionResetError)
        await channel.close()


async def _only(directory: Path, *names: str) -> None:
    """Return when the agent has cleared away what it had begun there."""
    async with asyncio.timeout(_SECONDS):
        while sorted(entry.name for entry in directory.iterdir()) != sorted(names):
            await asyncio.sleep(0.005)
