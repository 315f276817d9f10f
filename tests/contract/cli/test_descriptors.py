"""When the server may have no more files open, its callers are told so, and it goes on as soon as it may again."""

import asyncio
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from contract.cli.conftest import Ingle
from harness import Server, refused, running_server, server_directory
from ingle.v1 import vm_pb2, vm_pb2_grpc


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_directory() as root, running_server(root) as running:
        yield running


@contextmanager
def exhausted(server: Server, left: int = 0) -> Iterator[None]:
    """It may open `left` more."""
    assert server.process is not None
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    numbers = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = [number for number in range(max(numbers) + left + 2) if number not in numbers]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[left], before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def fresh(server: Server) -> "grpc.Channel":
    return grpc.insecure_channel(f"unix:{server.socket}", options=[("grpc.use_local_subchannel_pool", 1)])


@pytest.mark.parametrize("left", range(5))
async def test_each_caller_is_told_or_served(server: Server, isolated: Ingle, left: int) -> None:
    ingle = isolated.with_variables(INGLE_SOCKET=str(server.socket))
    with exhausted(server, left):
        answers = await asyncio.gather(*(ingle("vm", "list", "--json") for _ in range(3)))
        for answer in answers:
            assert answer.code == 0 or '"reason": "HOST_EXHAUSTED"' in answer.err, answer
        if not left:
            assert all(answer.code == 1 and "Too many open files" in answer.err for answer in answers), answers
        with fresh(server) as channel:
            if not left:
                said = refused(vm_pb2_grpc.VmServiceStub(channel).ListVms, vm_pb2.ListVmsRequest(), timeout=20)
                assert (said.code, said.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "HOST_EXHAUSTED")
                assert "ulimit -Hn" in said.remedy
    assert (await ingle("vm", "list")).code == 0


async def test_callers_who_say_nothing_do_not_keep_others_from_being_told(server: Server, isolated: Ingle) -> None:
    ingle = isolated.with_variables(INGLE_SOCKET=str(server.socket))
    with exhausted(server):
        silent = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for caller in silent:
            caller.connect(str(server.socket))
        assert "Too many open files" in (await ingle("vm", "list")).err
        for caller in silent:
            caller.close()


async def test_a_server_that_may_have_hardly_any_says_so_in_a_line(isolated: Ingle) -> None:
    for most in (20, 63):
        started = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f'ulimit -n {most}; exec "$@"', "sh", sys.executable, "-m", "ingle.api_server", "serve",
            env=isolated.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await started.communicate()
        assert started.returncode == 1
        assert said.decode().splitlines() == [
            f"ingle-server: the server needs 64 file descriptors at least, and may have {most}",
            "  try: start it where `ulimit -Hn` says more",
        ]
