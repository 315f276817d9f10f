"""Who comes through the accept gate."""

import asyncio
import os
import pwd
import random
import resource
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from h2.events import StreamEnded
from h2.exceptions import ProtocolError

from harness import refusal
from ingle.api_server.gate import Callers, Gate, identity_of, open_gate
from ingle.api_server.grpc_server import GrpcServer
from ingle.api_server.host.peers import Peer, peer_of
from ingle.api_server.model.caller import Caller
from ingle.api_server.rpc.interceptors import CallInterceptor
from ingle.api_server.rpc.standard import add_health
from ingle.v1 import system_pb2, system_pb2_grpc
from unit.api_server.calling import BREAKING, calling
from unit.fuzzing import mutations

NOBODY = pwd.getpwnam("nobody")
KNOCK = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_UNIX) as caller:
    caller.settimeout(10)
    try:
        caller.connect(sys.argv[3])
        caller.send(b"x")
        print(caller.recv(1).decode() or "closed")
    except OSError as error:
        print(type(error).__name__)
"""


def _peer(uid: int, *groups: int) -> Peer:
    return Peer(pid=1, uid=uid, gid=groups[0], groups=frozenset(groups))


def test_only_the_user_itself_is_admitted_without_a_group() -> None:
    callers = Callers(1000)
    assert callers.caller(_peer(1000, 1000)) == Caller(1000, admin=True)
    assert callers.caller(_peer(0, 0)) is None
    assert callers.caller(_peer(1001, 1000)) is None


def test_with_a_group_its_members_and_root_are_admitted() -> None:
    callers = Callers(1000, 54321)
    assert callers.caller(_peer(0, 0)) == Caller(0, admin=True)
    assert callers.caller(_peer(2000, 2000, 54321)) == Caller(2000, admin=False)
    assert callers.caller(_peer(2000, 54321)) == Caller(2000, admin=False)
    assert callers.caller(_peer(2000, 2000, 5432)) is None


def test_an_admin_is_a_member_of_both_groups() -> None:
    callers = Callers(1000, 54321, admins=54322)
    assert callers.caller(_peer(2000, 2000, 54321, 54322)) == Caller(2000, admin=True)
    assert callers.caller(_peer(2000, 2000, 54322)) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("groups", [[], [54321], list(range(100_000, 101_000))])
def test_the_kernel_tells_all_groups_of_a_peer(groups: list[int], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        say = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"
        tmp_path.chmod(0o755)
        child = subprocess.Popen([sys.executable, "-c", say, str(tmp_path / "s")], extra_groups=groups, group=77)
        with listener.accept()[0] as connection:
            assert peer_of(connection) == Peer(child.pid, 0, 77, frozenset({*groups, 77}))
        child.wait()


def test_what_the_gate_says_of_a_caller_is_read_as_it_was_written() -> None:
    told = "unix-abstract:ingle-gate/uid=4294967294,admin=1,pid=17,n=00"
    assert identity_of(told) == (Caller(2**32 - 2, admin=True), 17)
    assert identity_of(told.replace("ingle-gate", "other")) is identity_of("unix:") is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
async def test_the_kernel_refuses_strangers_at_the_socket_and_the_gate_those_who_get_past_it() -> None:
    with tempfile.TemporaryDirectory(prefix="ingle-t-") as name:
        root = Path(name)
        root.chmod(0o755)

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(1))
            writer.close()

        upstream = await asyncio.start_unix_server(echo, root / "up.sock")
        gate = await open_gate(root / "api.sock", root / "up.sock", Callers(os.getuid(), NOBODY.pw_gid))
        try:
            assert stat.S_IMODE((root / "api.sock").stat().st_mode) == 0o660
            assert (root / "api.sock").stat().st_gid == NOBODY.pw_gid
            assert await _knock(root, uid=NOBODY.pw_uid, gid=NOBODY.pw_gid) == "x"
            assert await _knock(root, uid=12345, gid=12345) == "PermissionError"
            # Of the group by the kernel's word, of no group by that of the account database: the mode was loosened.
            (root / "api.sock").chmod(0o666)
            assert await _knock(root, uid=12345, gid=12345) in {"closed", "ConnectionResetError", "BrokenPipeError"}
        finally:
            gate.close()
            upstream.close()


async def _knock(root: Path, *, uid: int, gid: int) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KNOCK, str(uid), str(gid), str(root / "api.sock"), stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


@pytest.fixture
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gate, Path]]:
    """A gate before a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    with tempfile.TemporaryDirectory(prefix="ingle-t-") as name:
        root = Path(name)
        upstream = await asyncio.start_unix_server(echo, root / "up.sock", backlog=1000)
        gate = await open_gate(root / "api.sock", root / "up.sock", Callers(os.getuid()))
        yield gate, root / "api.sock"
        gate.close()
        upstream.close()


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """That many may be opened, and no more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    filler = [
        os.open("/dev/null", os.O_RDONLY) for _ in range(max(0, max(map(int, os.listdir("/proc/self/fd"))) - used))
    ]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in filler:
            os.close(descriptor)


async def _echoes(public: Path, word: bytes) -> bool:
    reader, writer = await asyncio.open_unix_connection(public)
    writer.write(word)
    writer.write_eof()
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said == word


@pytest.mark.parametrize("left", range(1, 6))
async def test_without_descriptors_a_connection_waits_or_ends_and_is_told_once(
    place: tuple[Gate, Path], left: int, caplog: pytest.LogCaptureFixture
) -> None:
    _, public = place
    callers = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    try:
        with descriptors_left(left):
            for caller in callers:
                caller.setblocking(False)
                caller.connect(str(public))
            await asyncio.sleep(0.5)
            assert sum(record.name == Gate.__module__ for record in caplog.records) <= 3
        # None hangs: each is answered now, or was told why not (a frame's first byte is 0), or was closed.
        for caller in callers:
            with suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(caller, b"x")
            with suppress(ConnectionResetError):
                async with asyncio.timeout(10):
                    assert await asyncio.get_running_loop().sock_recv(caller, 1) in {b"x", b"\0", b""}
    finally:
        for caller in callers:
            caller.close()
    assert await _echoes(public, b"still there")


async def test_a_burst_is_not_refused(place: tuple[Gate, Path]) -> None:
    _, public = place
    callers = [socket.socket(socket.AF_UNIX) for _ in range(300)]
    try:
        for caller in callers:
            caller.setblocking(False)
            caller.connect(str(public))  # nothing accepts meanwhile
    finally:
        for caller in callers:
            caller.close()
    assert await _echoes(public, b"still there")


async def test_one_user_has_its_share_of_connections_and_each_that_ends_makes_room(
    place: tuple[Gate, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, public = place
    monkeypatch.setattr(gate, "_most", 3)
    held = [await asyncio.open_unix_connection(public) for _ in range(3)]
    for reader, writer in held:
        writer.write(b"x")
        assert await reader.read(1) == b"x"
    async with grpc.aio.insecure_channel(f"unix:{public}") as channel:
        ping = system_pb2_grpc.SystemServiceStub(channel).Ping
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ping(system_pb2.PingRequest(), timeout=30)
    told = refusal(raised.value)
    assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    assert f"user {os.getuid()} has 3 connections" in told.message
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(10):
        while gate._open:
            await asyncio.sleep(0.01)
    assert await _echoes(public, b"room again")


async def test_of_connections_that_are_too_many_few_are_told_and_wait_for_that(
    place: tuple[Gate, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, public = place
    monkeypatch.setattr(opened, "_most", 0)
    monkeypatch.setattr("ingle.api_server.gate._TOLD_AT_ONCE", 3)
    silent = [await asyncio.open_unix_connection(public) for _ in range(3)]
    for reader, _ in silent:
        assert await reader.read(1)  # it is waited for what it asks
    more = [await asyncio.open_unix_connection(public) for _ in range(5)]
    assert [await reader.read() for reader, _ in more] == [b""] * 5
    for _, writer in [*silent, *more]:
        writer.close()
    async with asyncio.timeout(10):
        while opened._connections:
            await asyncio.sleep(0.01)
    assert not opened._telling


async def test_a_caller_who_is_hung_up_on_at_once_is_told(place: tuple[Gate, Path]) -> None:
    gate, public = place
    reader, writer = await asyncio.open_unix_connection(public)
    while not gate._connections:
        await asyncio.sleep(0)
    gate.hang_up()  # before anything was done for it
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


@pytest.fixture
async def sulking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gate, Path]]:
    """A gate before a server that talks and never listens to whom begins with an s, and is as the other with others."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (data := await reader.readexactly(1)) == b"s":
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(bytes(1 << 21))
            await ended.wait()
            return
        while data:
            writer.write(data)
            data = await reader.read(65536)
        writer.close()

    with tempfile.TemporaryDirectory(prefix="ingle-t-") as name:
        root = Path(name)
        upstream = await asyncio.start_unix_server(serve, root / "up.sock", limit=1)
        gate = await open_gate(root / "api.sock", root / "up.sock", Callers(os.getuid()))
        yield gate, root / "api.sock"
        ended.set()
        gate.close()
        upstream.close()


async def _talks_and_never_listens(public: Path) -> socket.socket:
    """Until nothing more is taken."""
    caller = socket.socket(socket.AF_UNIX)
    caller.setblocking(False)
    caller.connect(str(public))
    caller.send(b"s")
    await asyncio.sleep(0.2)
    for _ in range(100):
        with suppress(BlockingIOError):
            while True:
                caller.send(bytes(65536))
        await asyncio.sleep(0.01)
    return caller


async def test_a_caller_who_left_makes_room_where_nobody_takes_what_it_said(
    sulking: tuple[Gate, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, public = sulking
    monkeypatch.setattr("ingle.api_server.gate._LEAVE_SECONDS", 0.1)
    (await _talks_and_never_listens(public)).close()
    async with asyncio.timeout(10):
        while gate._open:
            await asyncio.sleep(0.01)
    assert await _echoes(public, b"room again")


async def test_connections_after_those_hung_up_on_are_served(sulking: tuple[Gate, Path]) -> None:
    """They get the numbers of their descriptors."""
    gate, public = sulking
    callers = [await _talks_and_never_listens(public) for _ in range(3)]
    gate.hang_up()
    async with asyncio.timeout(10):
        for _ in range(10):
            assert await _echoes(public, b"next")
    for caller in callers:
        caller.close()


def test_fuzz_gate() -> None:
    """Any bytes, cut off anywhere, before the server proper, and what breaks that.

    Who calls next is answered, and nothing stays open."""
    asyncio.run(_fuzz())


async def _fuzz() -> None:
    with tempfile.TemporaryDirectory(prefix="ingle-t-") as name:
        root = Path(name)
        server = GrpcServer(
            f"{root}/up.sock",
            lambda server: add_health((), server),
            lambda: gate.hang_up(),  # noqa: PLW0108 - it comes later
            CallInterceptor(),
        )
        await server.start()
        gate = await open_gate(root / "api.sock", root / "up.sock", Callers(os.getuid()))
        dice = random.Random(7)
        call = calling().data_to_send()
        seeds = [call, calling(BREAKING).data_to_send(), call + b"\0\0\0\4\1\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"x"]
        for count, data in enumerate(mutations(seeds)):
            await _send(root / "api.sock", data, dice)
            if count % 100 == 0:
                await _is_answered(root / "api.sock")
        await _is_answered(root / "api.sock")
        async with asyncio.timeout(30):
            while gate._open:
                await asyncio.sleep(0.01)
        gate.close()
        await server.refuse(0)


async def _send(public: Path, data: bytes, dice: random.Random) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        caller.connect(str(public))
        cut = dice.randrange(len(data) + 1)
        with suppress(OSError):
            caller.send(data[:cut])
            await asyncio.sleep(0)
            caller.send(data[cut:])
            if dice.random() < 0.3:
                caller.shutdown(dice.choice((socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR)))
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)


async def _is_answered(public: Path) -> None:
    """Perhaps after a moment in which a server that broke was replaced."""
    async with asyncio.timeout(30):
        while not await _answers(public):
            await asyncio.sleep(0.1)


async def _answers(public: Path) -> bool:
    client = calling()
    reader, writer = await asyncio.open_unix_connection(public)
    writer.write(client.data_to_send())
    try:
        while data := await reader.read(65536):
            if any(isinstance(event, StreamEnded) for event in client.receive_data(data)):
                return True
    except (ConnectionError, ProtocolError):  # h2 takes nothing any more from a server that has taken its leave
        return False
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return False
