"""A guest that writes to its console without end fills nobody's disk, also while no server runs."""

import resource
import time
from pathlib import Path

from harness import NewServer
from ingle.v1 import guest_pb2, vm_pb2

_ROOM = 64 * 1024
# Until it is told, it says nothing: the server is to be gone by then.
_FLOOD = "sleep 6; yes 'one more line of many' | head -c 300000 >/dev/ttyS0; sync; echo written >/root/done; sync"


def test_a_console_that_nobody_looks_after_stops_where_the_kernel_says_and_the_vm_goes_on(
    new_server: NewServer,
) -> None:
    server = new_server()
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(name="loud"))).vm
    console, vmm_log = (server.state / "vms" / vm.id / name for name in ("console.log", "vmm.log"))
    (pid,) = (pid for pid, line in server.vmm_processes().items() if vm.id in line)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    assert vm.disk_bytes < min(_size(console), _size(vmm_log)) < soft < _size(console) + 2**26
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sh", "-c", _FLOOD], detach=True)
    list(server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)])))
    assert server.stop() == 0
    limit = _size(console) + _ROOM  # what it would take minutes to come to
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))
    while _size(console) < limit:
        time.sleep(0.1)
    server.start()
    deadline = time.monotonic() + 120
    while server.run(vm.id, "cat", "/root/done")[1] != b"written\n":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] > limit
    logs = vm_pb2.StreamVmLogsRequest(vm=vm.id, source=vm_pb2.LOG_SOURCE_CONSOLE, tail_lines=10**6)
    said = b"".join(response.data for response in server.vms.StreamVmLogs(logs))
    assert b"[ingle: there was no room for what was written here]" in said
    assert b"\0" not in said


def _size(file: Path) -> int:
    return file.stat().st_size
