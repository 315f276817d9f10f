"""The API's client, over a socket at which a test answers in Firecracker's place."""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ingle.api_server.adapters.firecracker.api import Api, NoAnswer, Refused
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed

Answer = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]


class Firecracker:
    """Answers as told; counts connections, and keeps what was asked."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.connections = 0
        self.asked: list[tuple[str, bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked.append((head.decode().partition(" HTTP")[0], body))
                await self._answer(writer, body)
        writer.close()


@asynccontextmanager
async def answering(root: Path, answer: Answer) -> AsyncIterator[tuple[Api, Firecracker]]:
    """In a directory whose path is longer than a socket's may be."""
    directory = root / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    (root / "short").symlink_to(directory)
    firecracker = Firecracker(answer)
    api = Api(directory / "vmm.sock")
    async with await asyncio.start_unix_server(firecracker.serve, root / "short" / "vmm.sock"):
        try:
            yield api, firecracker
        finally:
            await api.close()


def says(status: str, body: bytes = b"") -> Answer:
    async def answer(writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body))

    return answer


async def test_all_goes_over_one_connection_one_after_the_other(tmp_path: Path) -> None:
    async with answering(tmp_path, says("204 No Content")) as (api, firecracker):
        await asyncio.gather(*(api.put(f"/drives/{number}", {"drive_id": str(number)}) for number in range(20)))
        await api.patch("/vm", {"state": "Paused"})
    assert firecracker.connections == 1
    assert firecracker.asked[-1] == ("PATCH /vm", b'{"state":"Paused"}')
    assert len(firecracker.asked) == 21


async def test_what_it_tells_is_an_object(tmp_path: Path) -> None:
    async with answering(tmp_path, says("200 OK", b'{"state": "Running"}')) as (api, firecracker):
        assert await api.get("/") == {"state": "Running"}
    assert firecracker.asked == [("GET /", b"")]


@pytest.mark.parametrize("said", [b"[]", b"{", b"", b"\xff"])
async def test_what_is_no_object_is_a_failure(tmp_path: Path, said: bytes) -> None:
    async with answering(tmp_path, says("200 OK", said)) as (api, _):
        with pytest.raises(ToolFailed, match="GET /") as caught:
            await api.get("/")
    assert caught.value.reason is Reason.VMM_FAILED


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b'{"fault_message": "No such file or directory (os error 2)\\n"}', "No such file or directory (os error 2)"),
        (b'{"other": 1}', '{"other": 1}'),
        (b"what?", "what?"),
        (b"", "HTTP status 400"),
        (b'{"fault_message": "' + b"x" * 9000 + b'"}', "x" * 2000),
    ],
)
async def test_why_it_refuses_is_told(tmp_path: Path, said: bytes, fault: str) -> None:
    async with answering(tmp_path, says("400 Bad Request", said)) as (api, _):
        with pytest.raises(Refused) as caught:
            await api.put("/vsock", {})
    assert caught.value.message == f"Firecracker refuses PUT /vsock: {fault}"


async def test_it_is_asked_again_after_it_refused_hung_up_or_was_given_up(tmp_path: Path) -> None:
    answers = iter([says("400 Bad Request", b"no"), hangs_up, stays_silent, says("204 No Content")])

    async def next_one(writer: asyncio.StreamWriter, body: bytes) -> None:
        await next(answers)(writer, body)

    async with answering(tmp_path, next_one) as (api, firecracker):
        with pytest.raises(Refused):
            await api.put("/entropy", {})
        with pytest.raises(NoAnswer, match="does not answer PUT /entropy"):
            await api.put("/entropy", {})
        with pytest.raises(NoAnswer, match="no answer in 0 s"):
            await api.put("/entropy", {}, seconds=0.05)
        await api.put("/entropy", {})
    assert firecracker.connections == 3


async def test_nobody_there_is_no_answer(tmp_path: Path) -> None:
    api = Api(tmp_path / "vmm.sock")
    with pytest.raises(NoAnswer, match="does not answer GET /version"):
        await api.get("/version")
    await api.close()


async def test_a_directory_that_is_gone_is_no_answer(tmp_path: Path) -> None:
    api = Api(tmp_path / "gone" / "vmm.sock")
    with pytest.raises(NoAnswer, match=r"does not answer GET /version: .*No such file"):
        await api.get("/version")
    await api.close()


async def test_a_host_without_descriptors_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    api = Api(tmp_path / "vmm.sock")
    monkeypatch.setattr("ingle.api_server.adapters.firecracker.api.os.open", none_left)
    with pytest.raises(HostProblem) as caught:
        await api.get("/version")
    assert caught.value.reason is Reason.HOST_EXHAUSTED
    await api.close()


async def test_an_answer_without_an_end_is_given_up(tmp_path: Path) -> None:
    async def endless(writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            await writer.drain()

    async with answering(tmp_path, endless) as (api, _):
        with pytest.raises(ToolFailed, match="has no end"):
            await api.get("/")


async def hangs_up(writer: asyncio.StreamWriter, _: bytes) -> None:
    writer.close()


async def stays_silent(_: asyncio.StreamWriter, __: bytes) -> None:
    """Until it is asked something else."""
