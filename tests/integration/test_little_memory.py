"""A server that gets no more memory loses nothing of what it has answered, and says what it lacked."""

import resource
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness import Server, cloned_directory
from ingle.v1 import vm_pb2, vm_pb2_grpc

CALLS, CONNECTIONS = 200, 20
LONG = "x" * 3_000_000
ABORTED = -6


def _size(pid: int) -> int:
    """Bytes of its address space."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def _create(stub: vm_pb2_grpc.VmServiceStub, name: str) -> Any:
    request = vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name=name), no_start=True)
    return stub.CreateVm.future(request, timeout=60)


def _made_in_a_crowd(server: Server) -> tuple[set[str], "Counter[str]"]:
    """Of VMs that are asked for between calls which take much memory: those that the server has told of. And how the
    calls that failed ended."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.insecure_channel(f"unix:{server.socket}", options=options) for _ in range(CONNECTIONS)]
    stubs = [vm_pb2_grpc.VmServiceStub(channel) for channel in channels]
    calls: list[Any] = []
    creates: dict[str, Any] = {}
    for n in range(CALLS):
        stub = stubs[n % CONNECTIONS]
        if n % 4 == 0:
            creates[f"vm-{n}"] = _create(stub, f"vm-{n}")
        calls.append(stub.GetVm.future(vm_pb2.GetVmRequest(vm=LONG), timeout=60))
    made = {name for name, call in creates.items() if call.exception() is None}
    errors = [call.exception() for call in (*calls, *creates.values())]
    for channel in channels:
        channel.close()
    return made, Counter(error.code().name for error in errors if error is not None)


@pytest.mark.parametrize("more", [0, 16 << 20, 128 << 20])
def test_a_server_without_memory_goes_on_or_is_replaced_and_knows_what_it_knew(prepared: Path, more: int) -> None:
    with cloned_directory(prepared) as root:
        server = Server(root).start()
        assert server.process is not None
        pid = server.process.pid
        assert _create(server.vms, "kept").result().vm.name == "kept"
        resource.prlimit(pid, resource.RLIMIT_AS, (_size(pid) + more, resource.RLIM_INFINITY))
        made, ends = _made_in_a_crowd(server)
        # Refused for want of memory, by gRPC itself too, cut off with the server, or for what they are.
        expected = {"NOT_FOUND", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN", "INTERNAL"}
        assert set(ends) <= expected, ends
        if (code := server.process.poll()) is not None:
            assert code == ABORTED
            assert "Fatal Python error: Aborted" in server.log.read_text(errors="replace")
            server.start()
        else:
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        there_are = {vm.name for vm in server.list()}
        assert {"kept", *made} <= there_are
        for name in there_are:
            server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=name))
        assert server.stop() == 0
