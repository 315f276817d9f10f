"""`vm forward` and `vm ports`: the real command line, real gRPC, the real agent, real servers behind it."""

import asyncio
import hashlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from contract.agent.conftest import agent_binary, running_agent
from contract.cli.conftest import Ingle
from contract.cli.guest_servers import asked, break_off, connected, guest_server, upper
from contract.cli.stand_in import VmService
from contract.cli.world import World
from contract.one_vm import OneVm, behind_a_gate, new_server
from free_ports import free_port
from ingle.v1 import vm_pb2, vm_pb2_grpc

__all__ = ["agent_binary"]  # a fixture

MIB = 1 << 20


@pytest.fixture
def known() -> World:
    known = World()
    known.add_vm("web")
    return known


@pytest.fixture
async def server(isolated: Ingle, agent_binary: Path, tmp_path: Path, known: World) -> AsyncIterator[grpc.aio.Server]:
    with running_agent(agent_binary, tmp_path) as agent:
        server = new_server(OneVm(str(agent.path), {"web", f"{1:012x}"}))
        vm_pb2_grpc.add_VmServiceServicer_to_server(VmService(known), server)  # type: ignore[abstract]
        async with behind_a_gate(server, tmp_path):
            yield server


@pytest.fixture
def ingle(isolated: Ingle, server: grpc.aio.Server, tmp_path: Path) -> Ingle:
    return isolated.with_variables(INGLE_SOCKET=str(tmp_path / "api.sock"))


@asynccontextmanager
async def forwarding(ingle: Ingle, *rules: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """The command under way, and what it said it listens on."""
    process = await ingle.start("vm", "forward", "web", *rules)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            lines = [(await process.stdout.readline()).decode().rstrip() for _ in rules]
        yield process, [line.partition(" -> ")[0] for line in lines]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            await process.communicate()


async def line_of(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    async with asyncio.timeout(20):
        return (await stream.readline()).decode()


async def test_a_server_is_reached_and_both_directions_end_by_themselves(ingle: Ingle) -> None:
    async with guest_server(upper) as port:
        here = free_port()
        process = await ingle.start("vm", "forward", "web", f"{here}:{port}")
        assert await line_of(process.stdout) == f"127.0.0.1:{here} -> web port {port}\n"
        assert await asked(f"127.0.0.1:{here}", b"hello") == b"HELLO"
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (130, b"", b"")


async def test_a_server_may_end_first(ingle: Ingle) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def end_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        got.put_nowait(await reader.read())
        writer.close()

    async with guest_server(end_first) as port, forwarding(ingle, f"0:{port}") as (_, (place,)):
        reader, writer = await connected(place)
        async with asyncio.timeout(20):
            assert await reader.read() == b"bye"
            writer.write(b"after your end")
            writer.write_eof()
            assert await got.get() == b"after your end"
        writer.close()


async def test_many_at_once_on_tcp_and_unix_sockets_at_both_ends(ingle: Ingle, tmp_path: Path) -> None:
    there = await asyncio.start_unix_server(upper, str(tmp_path / "there.sock"))
    here = str(tmp_path / "here.sock")
    async with guest_server(upper) as port, guest_server(upper, "::1") as six:
        rules = (f"0:{port}", f"{here}:{port}", f"0:{tmp_path}/there.sock", f"[::1]:0:localhost:{six}")
        async with forwarding(ingle, *rules) as (_, places):
            assert places[1] == here
            assert os.stat(here).st_mode & 0o077 == 0
            answers = await asyncio.gather(*(asked(place, b"n%d" % n) for n in range(10) for place in places))
            assert answers == [b"N%d" % n for n in range(10) for _ in places]
        assert not Path(here).exists()
    there.close()


async def test_more_callers_than_are_served_at_once_get_their_turn(ingle: Ingle) -> None:
    async with guest_server(upper) as port, forwarding(ingle, f"0:{port}") as (_, (place,)):
        held = [await connected(place) for _ in range(250)]
        waiting = [asyncio.create_task(asked(place, b"n%d" % n)) for n in range(50)]
        for number, (reader, writer) in enumerate(held):
            writer.write(b"h%d" % number)
            writer.write_eof()
            async with asyncio.timeout(60):
                assert await reader.read() == b"H%d" % number
            writer.close()
        assert await asyncio.gather(*waiting) == [b"N%d" % n for n in range(50)]


async def test_twenty_megabytes_each_way_at_once_on_each_of_four_connections(ingle: Ingle) -> None:
    data = os.urandom(MIB) * 20
    whole = hashlib.sha256(data).digest()

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived = hashlib.sha256()
        while received := await reader.read(MIB):
            arrived.update(received)
            writer.write(received)
            await writer.drain()
        assert arrived.digest() == whole
        writer.close()

    async def echoed(place: str) -> bytes:
        reader, writer = await connected(place)

        async def send() -> None:
            for at in range(0, len(data), MIB):
                writer.write(data[at : at + MIB])
                await writer.drain()
            writer.write_eof()

        sending, received = asyncio.create_task(send()), hashlib.sha256()
        while piece := await reader.read(MIB):
            received.update(piece)
        await sending
        writer.close()
        return received.digest()

    async with guest_server(both) as port, forwarding(ingle, f"0:{port}") as (_, (place,)), asyncio.timeout(120):
        assert await asyncio.gather(*(echoed(place) for _ in range(4))) == [whole] * 4


async def test_a_slow_reader_slows_the_guest_at_constant_memory(ingle: Ingle) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(100):
            writer.write(bytes(MIB))
            await writer.drain()
        writer.close()

    async with guest_server(flood) as port, forwarding(ingle, f"0:{port}") as (process, (place,)):
        reader, writer = await connected(place)
        received = 0
        async with asyncio.timeout(120):
            while data := await reader.read(MIB):
                received += len(data)
                if received < 5 * MIB:
                    await asyncio.sleep(0.01)
        writer.close()
        assert received == 100 * MIB
        peak = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0])
        assert peak < 100_000, "KiB resident"


async def test_a_connection_the_guest_refuses_is_told_and_the_others_go_on(ingle: Ingle) -> None:
    nobody = free_port()
    async with guest_server(upper) as port, forwarding(ingle, f"0:{nobody}", f"0:{port}") as (process, places):
        with pytest.raises(ConnectionResetError):
            await asked(places[0], b"x")
        said = await line_of(process.stderr)
        assert said.startswith(f"ingle: {places[0]}: nobody listens on port {nobody} in the guest")
        assert "ingle vm ports web" in said
        assert await asked(places[1], b"still here") == b"STILL HERE"


async def test_a_broken_connection_is_broken_on_the_other_side_too(ingle: Ingle) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def break_or_see(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"b":
            break_off(writer)
            return
        writer.write(b"ready")
        try:
            await reader.read()
        except ConnectionResetError:
            seen.put_nowait("reset")
        else:
            seen.put_nowait("end")
        writer.close()

    async with guest_server(break_or_see) as port, forwarding(ingle, f"0:{port}") as (_, (place,)), asyncio.timeout(20):
        reader, writer = await connected(place)
        writer.write(b"b")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        reader, writer = await connected(place)
        writer.write(b"s")
        assert await reader.readexactly(5) == b"ready"
        break_off(writer)
        assert await seen.get() == "reset"


async def test_a_busy_local_port_is_told_before_anything_else(isolated: Ingle) -> None:
    """There is not even a server."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        ended = await isolated.with_variables(INGLE_SOCKET="/no/such/server")("vm", "forward", "web", f"{port}:80")
    assert (ended.code, ended.out) == (1, b"")
    assert f"127.0.0.1:{port} is in use on this host" in ended.err
    assert "any free one" in ended.err


async def test_a_local_socket_that_is_there_stays(ingle: Ingle, tmp_path: Path) -> None:
    path = tmp_path / "here.sock"
    path.touch()
    ended = await ingle("vm", "forward", "web", f"{path}:80")
    assert (ended.code, path.exists()) == (1, True)
    assert f"rm {path}" in ended.err


@pytest.mark.parametrize(
    ("rules", "code", "words"),
    [
        (["http"], 2, "is no port"),
        ([], 2, "Missing argument"),
        (["0:80", f"./{'x' * 110}:80"], 1, "longer than"),
        (["192.0.2.1:0:80"], 1, "can't listen on 192.0.2.1:0"),
        (["--stdio", "80", "81"], 2, "one target"),
        (["--stdio", "8080:x:80"], 2, "too many colons"),
    ],
)
async def test_wrong_usage_says_what_is_right(ingle: Ingle, rules: list[str], code: int, words: str) -> None:
    ended = await ingle("vm", "forward", "web", *rules)
    assert (ended.code, ended.out) == (code, b"")
    assert words in ended.err


async def test_a_vm_that_does_not_run_or_is_not_there(ingle: Ingle, known: World) -> None:
    ended = await ingle("vm", "forward", "ghost", "0:80")
    assert (ended.code, ended.out) == (1, b"")
    assert "ghost" in ended.err
    next(iter(known.vms.values())).state = vm_pb2.VM_STATE_STOPPED
    ended = await ingle("vm", "forward", "web", "0:80")
    assert (ended.code, ended.out) == (1, b"")
    assert "ingle vm start web" in ended.err


async def test_the_end_of_the_vm_ends_it_also_while_nobody_is_connected(ingle: Ingle, known: World) -> None:
    process = await ingle.start("vm", "forward", "web", "0:80")
    await line_of(process.stdout)
    next(iter(known.vms.values())).state = vm_pb2.VM_STATE_STOPPED
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert b"VM 'web' does not run any more" in err
    assert b"ingle vm start web" in err


async def test_the_end_of_the_server_ends_it(ingle: Ingle, server: grpc.aio.Server, tmp_path: Path) -> None:
    process = await ingle.start("vm", "forward", "web", "0:80")
    await line_of(process.stdout)
    await server.stop(None)
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert err.startswith(b"ingle: ")


async def test_a_connection_on_stdin_and_stdout(ingle: Ingle) -> None:
    data = os.urandom(3 * MIB)

    async def after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async with guest_server(after_the_end) as port:
        ended = await ingle("vm", "forward", "web", "--stdio", str(port), stdin=data)
    assert (ended.code, ended.out == data, ended.err) == (0, True, "")
    ended = await ingle("vm", "forward", "web", "--stdio", str(free_port()), stdin=b"")
    assert (ended.code, ended.out) == (1, b"")
    assert "nobody listens" in ended.err


async def test_stdout_ends_when_the_server_does(ingle: Ingle) -> None:
    async def end_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        await reader.read()
        writer.close()

    async with guest_server(end_first) as port:
        process = await ingle.start("vm", "forward", "web", "--stdio", str(port), stdin=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert await process.stdout.read() == b"bye"
            assert process.returncode is None
            await process.communicate(b"")
    assert process.returncode == 0


async def test_where_it_listens_as_json(ingle: Ingle) -> None:
    process = await ingle.start("vm", "forward", "--json", "web", "0:80", "0:/run/x.sock")
    assert process.stdout is not None
    text = b""
    async with asyncio.timeout(20):
        while not text.endswith(b"]\n"):
            text += await process.stdout.readline()
    first, second = json.loads(text)
    assert first["local"]["host"] == "127.0.0.1"
    assert first["local"]["port"] > 0
    assert first["target"] == {"host": None, "port": 80, "path": None}
    assert second["target"] == {"host": None, "port": None, "path": "/run/x.sock"}
    process.terminate()
    await process.communicate()
    assert process.returncode == 128 + signal.SIGTERM


async def test_ports_as_a_table_and_as_json(ingle: Ingle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        lines = (await ingle("vm", "ports", "web")).text.splitlines()
        found = [each for each in json.loads((await ingle("vm", "ports", "--json", "web")).out) if each["port"] == port]
    assert lines[0].split() == ["PROTO", "ADDRESS", "PORT", "PID", "PROCESS", "USER", "COMMAND"]
    (line,) = [line.split() for line in lines if line.split()[2] == str(port)]
    assert line[:4] == ["tcp", "127.0.0.1", str(port), str(os.getpid())]
    assert (found[0]["protocol"], found[0]["address"], found[0]["pid"]) == ("tcp", "127.0.0.1", os.getpid())
