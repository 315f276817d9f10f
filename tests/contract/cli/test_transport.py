"""Our HTTP/2 client against the real gRPC server: flow control, many calls at once, endings."""

import asyncio
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import hpack
import pytest
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from contract.cli.conftest import Ingle
from contract.cli.stand_in import new_server
from contract.cli.world import World
from ingle.cli.client import Client, connect
from ingle.cli.errors import CliError
from ingle.cli.transport import Connection
from ingle.cli.uploads import Upload
from ingle.v1 import guest_pb2, vm_pb2


@pytest.fixture(autouse=True)
def _named_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_SOCKET", str(tmp_path / "api.sock"))


async def test_an_answer_larger_than_the_window_arrives_whole(world: World) -> None:
    for number in range(3000):
        world.add_vm(f"vm-{number}", error="x" * 1000)

    def names() -> list[str]:
        with connect() as client:
            return [vm.name for vm in client.call(vm_pb2.ListVmsRequest(), vm_pb2.ListVmsResponse).vms]

    assert await asyncio.to_thread(names) == [f"vm-{number}" for number in range(3000)]


async def test_a_stream_nobody_reads_does_not_hold_up_another_call(world: World) -> None:
    world.add_vm("web")

    def calls() -> int:
        with connect() as client:
            unread = [
                client.begin(vm_pb2.StreamVmLogsRequest(vm="web"), vm_pb2.StreamVmLogsResponse) for _ in range(10)
            ]
            for _ in range(20):
                client.call(vm_pb2.GetVmRequest(vm="web"), vm_pb2.GetVmResponse)
            return sum(call.result().data.startswith(b"line 0") for call in unread)

    assert await asyncio.to_thread(calls) == 10


async def test_a_stream_arrives_complete_and_in_order(world: World) -> None:
    world.add_vm("web")

    def lines() -> list[bytes]:
        with connect() as client:
            request = vm_pb2.StreamVmLogsRequest(vm="web", tail_lines=20_000)
            return [part.data for part in client.begin(request, vm_pb2.StreamVmLogsResponse)]

    assert await asyncio.to_thread(lines) == [b"line %d \xff\n" % number for number in range(20_000)]


async def test_leaving_a_stream_leaves_the_connection_usable(world: World) -> None:
    world.add_vm("web")

    def name() -> str:
        with connect() as client:
            stream = client.begin(vm_pb2.StreamVmLogsRequest(vm="web"), vm_pb2.StreamVmLogsResponse)
            stream.result()
            stream.cancel()
            return client.call(vm_pb2.GetVmRequest(vm="web"), vm_pb2.GetVmResponse).vm.name

    assert await asyncio.to_thread(name) == "web"


async def test_calls_fail_one_by_one(world: World) -> None:
    world.add_vm("web")

    def answers() -> tuple[str, str]:
        with connect() as client:
            bad = client.begin(vm_pb2.GetVmRequest(vm="ghost"), vm_pb2.GetVmResponse)
            good = client.begin(vm_pb2.GetVmRequest(vm="web"), vm_pb2.GetVmResponse)
            with pytest.raises(CliError) as failed:
                bad.result()
            return failed.value.failures[0].reason, good.result().vm.name

    assert await asyncio.to_thread(answers) == ("VM_NOT_FOUND", "web")


async def test_a_stopping_server_lets_a_command_end_and_its_last_words_arrive(isolated: Ingle, tmp_path: Path) -> None:
    world = World()
    world.add_vm("web")
    server: grpc.aio.Server = new_server(world, f"unix:{tmp_path}/api.sock")
    await server.start()
    ingle = isolated.with_variables(INGLE_SOCKET=str(tmp_path / "api.sock"))
    script = "echo ready; read line; echo last words; exit 3"
    process = await ingle.start("vm", "exec", "web", "--", "sh", "-c", script, stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    stopping = asyncio.create_task(server.stop(20))
    while (tmp_path / "api.sock").exists():
        await asyncio.sleep(0.01)
    out, err = await process.communicate(b"go on\n")
    await stopping
    assert (process.returncode, out, err) == (3, b"last words\n", b"")


def test_a_server_that_says_nothing_is_given_up_after_the_limit(tmp_path: Path) -> None:
    with socket.create_server(str(tmp_path / "api.sock"), family=socket.AF_UNIX):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "api.sock"))
        connection = Connection(sock, silence_limit=0.05)
        connection.start()
        with Client(connection) as client:
            with pytest.raises(CliError, match=r"0\.05 s"):
                client.call(vm_pb2.ListVmsRequest(), vm_pb2.ListVmsResponse)
            with pytest.raises(CliError, match=r"0\.05 s"):
                client.call(vm_pb2.ListVmsRequest(), vm_pb2.ListVmsResponse)


def test_a_server_may_use_what_it_was_allowed_before_it_says_so() -> None:
    """Frames and windows of the size we offered, in front of the SETTINGS acknowledgement."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours, silence_limit=20)
    connection.start()
    with theirs, Client(connection) as client:
        call = client.begin(vm_pb2.GetVmRequest(vm="web"), vm_pb2.GetVmResponse)
        answer = vm_pb2.GetVmResponse(vm=vm_pb2.Vm(error="x" * 300_000)).SerializeToString()
        message = struct.pack(">BI", 0, len(answer)) + answer
        headers = hpack.Encoder()
        frames = [
            SettingsFrame(0),
            HeadersFrame(1, data=headers.encode([(":status", "200")]), flags=["END_HEADERS"]),
            *(DataFrame(1, data=message[at : at + 130_985]) for at in range(0, len(message), 130_985)),
            HeadersFrame(1, data=headers.encode([("grpc-status", "0")]), flags=["END_HEADERS", "END_STREAM"]),
        ]
        with ThreadPoolExecutor(1) as server:
            sent = server.submit(theirs.sendall, b"".join(frame.serialize() for frame in frames))
            assert call.result().vm.error == "x" * 300_000
            sent.result()


def test_an_upload_goes_on_while_the_server_takes_it_without_a_word() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, silence_limit=20)
    connection.start()
    size = 20_000_000

    def take_all() -> int:
        room = (SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 30}), WindowUpdateFrame(0, 1 << 30))
        theirs.sendall(b"".join(frame.serialize() for frame in room))
        taken = 0
        while data := theirs.recv(1 << 20):
            taken += len(data)
        return taken

    with theirs, ThreadPoolExecutor(1) as server:
        taken = server.submit(take_all)
        with Client(connection) as client:
            call = client.begin(guest_pb2.WriteFileRequest(), guest_pb2.WriteFileResponse, last=False)
            Upload(client, call, guest_pb2.WriteFileRequest).write(bytes(size))
            while not call.stream.can_send:
                connection.wait()
        assert taken.result() > size - (1 << 20)  # all but what was on its way when we left
