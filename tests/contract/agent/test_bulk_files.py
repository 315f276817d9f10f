"""A gigabyte through server and agent, each a process of its own, without either holding it."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from contract.agent.conftest import Agent
from ingle.v1 import guest_pb2, guest_pb2_grpc
from ingle.v1.upload_pb2 import UploadEnd

_GIGABYTE = 1 << 30
_PIECE = 1 << 18
_AGENT_LIMIT = 20 << 20
_SERVER_GROWTH_LIMIT = 30 << 20


@pytest.fixture
def serving(start_agent: Callable[..., Agent], tmp_path: Path) -> Iterator[tuple[int, int, str]]:
    """The pids of agent and server, and the server's socket."""
    agent = start_agent()
    path = [str(Path(__file__).parents[2]), *sys.path]
    server = subprocess.Popen(
        [sys.executable, "-m", "contract.one_vm", agent.path, tmp_path / "api.sock"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"ready\n"
        yield agent.process.pid, server.pid, f"unix:{tmp_path}/api.sock"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def most_memory(pid: int) -> int:
    """The most bytes that a process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def test_a_gigabyte_goes_both_ways_at_constant_memory(serving: tuple[int, int, str], tmp_path: Path) -> None:
    agent, server, address = serving
    path = tmp_path / "large"
    with grpc.insecure_channel(address) as channel:
        guest = guest_pb2_grpc.GuestServiceStub(channel)
        _write(guest, path, 4 * _PIECE)  # so that everything is loaded
        list(guest.ReadFile(guest_pb2.ReadFileRequest(vm="web", path=str(path))))
        before = most_memory(server)
        try:
            written = _write(guest, path, _GIGABYTE)
            read = hashlib.sha256()
            for response in guest.ReadFile(guest_pb2.ReadFileRequest(vm="web", path=str(path))):
                read.update(response.data)
        finally:
            path.unlink()
    assert response.end.next_offset == _GIGABYTE
    assert read.hexdigest() == written
    assert most_memory(agent) <= _AGENT_LIMIT
    assert most_memory(server) - before <= _SERVER_GROWTH_LIMIT


def _write(guest: guest_pb2_grpc.GuestServiceStub, path: Path, size: int) -> str:
    """Write so much, no piece like another; its hash."""
    pattern, digest = os.urandom(_PIECE - 8), hashlib.sha256()

    def requests() -> Iterator[guest_pb2.WriteFileRequest]:
        yield guest_pb2.WriteFileRequest(start=guest_pb2.WriteFileStart(vm="web", path=str(path)))
        for number in range(size // _PIECE):
            piece = number.to_bytes(8, "big") + pattern
            digest.update(piece)
            yield guest_pb2.WriteFileRequest(data=piece)
        yield guest_pb2.WriteFileRequest(end=UploadEnd())

    assert guest.WriteFile(requests()).file.size_bytes == size
    return digest.hexdigest()
