"""A caller that vanishes in the middle of a stream, at each point and in each way: silence is never taken for the end.

Real gRPC to a real agent: its files and processes are this host's."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.agent.conftest import Agent
from contract.one_vm import new_server
from harness import refusal
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
async def api(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr(interceptors, "PEER_PREFIX", "unix:")  # there is no gate before this server
    interceptor = interceptors.CallInterceptor()
    server = new_server(str(agent.path), f"{tmp_path}/api.sock", interceptor)
    await server.start()
    yield Api(f"unix:{tmp_path}/api.sock", interceptor.calls)
    await server.stop(None)


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A directory of the guest's."""
    (tmp_path / "guest").mkdir()
    return tmp_path / "guest"


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
    await call.wait_for_connection()
    for request in _write_requests(path, append=append)[:sent]:
        await call.write(request)
    await WAYS[way](call, channel)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call
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
@pytest.mark.parametrize("point", ["before start", "after start", "before end"])
async def test_an_archive_replaces_whole_files_alone_when_its_sender_leaves(
    api: Api, guest: Path, way: str, point: str
) -> None:
    archive = _archive(("first", _PIECE), ("second", _PIECE))
    for name in ("first", "second"):
        (guest / name).write_bytes(_OLD)
    start = guest_pb2.CopyInRequest(start=guest_pb2.CopyInStart(vm="web", path=str(guest)))
    sent = {"before start": None, "after start": 0, "before end": len(archive)}
    channel = api.connect()
    call = guest_pb2_grpc.GuestServiceStub(channel).CopyIn(timeout=_timeout(way))
    await call.wait_for_connection()
    if (most := sent[point]) is not None:
        await call.write(start)
        await call.write(guest_pb2.CopyInRequest(data=archive[:most]))
    await WAYS[way](call, channel)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call
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


async def _only(directory: Path, *names: str) -> None:
    """Return when the agent has cleared away what it had begun there."""
    async with asyncio.timeout(_SECONDS):
        while sorted(entry.name for entry in directory.iterdir()) != sorted(names):
            await asyncio.sleep(0.005)
