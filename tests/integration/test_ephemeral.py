"""VMs that live for somebody go with them, whoever else is killed in the same instant."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness import NewServer, Server, nothing_left
from ingle.v1 import operation_pb2, vm_pb2

# A client of its own, that makes a VM for itself and stays.
OWNER = """
import sys, grpc
from ingle.v1 import vm_pb2, vm_pb2_grpc
with grpc.insecure_channel(f"unix:{sys.argv[1]}") as channel:
    vms = vm_pb2_grpc.VmServiceStub(channel)
    spec = vm_pb2.VmSpec(name="mine")
    vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec, ephemeral=True, no_start=True))
    print("made", flush=True)
    sys.stdin.read()
"""

# One that runs a command, and outlives the loss of its server.
COMMAND = """
import sys, grpc
from ingle.v1 import guest_pb2, guest_pb2_grpc
with grpc.insecure_channel(f"unix:{sys.argv[1]}") as channel:
    start = guest_pb2.ExecStart(vm=sys.argv[2], argv=["sh", "-c", "echo up; sleep 1000"], delete_vm=True)
    try:
        for said in guest_pb2_grpc.GuestServiceStub(channel).Exec(iter([guest_pb2.ExecRequest(start=start)])):
            if said.stdout_data:
                print("up", flush=True)
    except grpc.RpcError:
        sys.stdin.read()
"""


@contextmanager
def client(server: Server, *argv: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, *argv],
        env={**os.environ, "INGLE_SOCKET": str(server.socket)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def all_done(server: Server) -> bool:
    """Whether no operation is under way: a VM leaves the list before its files go."""
    operations = server.operations.ListOperations(operation_pb2.ListOperationsRequest()).operations
    return all(operation.state != operation_pb2.OPERATION_STATE_RUNNING for operation in operations)


def test_run_rm_whose_client_and_server_are_both_killed_leaves_nothing(new_server: NewServer) -> None:
    server = new_server()
    with client(server, "-m", "ingle.cli", "vm", "run", "--rm", "--", "sh", "-c", "echo up; sleep 1000") as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        run.send_signal(signal.SIGSTOP)  # it must not see the end of the server, and mend it
        server.kill()
        run.kill()
    server.start()
    until(lambda: server.list() == [] and all_done(server))
    nothing_left(server)


def test_the_vm_of_a_command_goes_with_the_server_that_ran_it_though_its_caller_lives(new_server: NewServer) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    with client(server, "-c", COMMAND, str(server.socket), vm.id) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "up\n"
        server.kill()
        server.start()
        until(lambda: server.list() == [])
        assert caller.poll() is None


def test_an_ephemeral_vm_goes_with_the_process_that_made_it(new_server: NewServer) -> None:
    server = new_server()
    with client(server, "-c", OWNER, str(server.socket)) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "made\n"
        assert [vm.name for vm in server.list()] == ["mine"]
    until(lambda: server.list() == [])


def test_an_ephemeral_vm_survives_its_server_but_not_its_owner(new_server: NewServer) -> None:
    server = new_server()
    with client(server, "-c", OWNER, str(server.socket)) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "made\n"
        server.kill()
        server.start()
        assert [vm.name for vm in server.list()] == ["mine"]
    until(lambda: server.list() == [])
    with client(server, "-c", OWNER, str(server.socket)) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "made\n"
        server.kill()
    server.start()
    until(lambda: server.list() == [] and all_done(server))
    nothing_left(server)
