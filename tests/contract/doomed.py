"""A server with stand-ins for engines that is killed again and again, and whether what it leaves is in order."""

import json
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import IO

from harness import Server, no_process_left, server_directory
from ingle.testing import made_up
from ingle.v1 import vm_pb2
from uploading import image_upload, kernel_upload

SPEC = vm_pb2.VmSpec(engine="red", image="tiny", kernel="made-up", boot_mode=vm_pb2.BOOT_MODE_COLD)
WITH_PROCESS = frozenset({vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_PAUSED})
LASTING = frozenset({*WITH_PROCESS, vm_pb2.VM_STATE_HIBERNATED, vm_pb2.VM_STATE_STOPPED, vm_pb2.VM_STATE_ERROR})

_END_SECONDS = 30.0


class Forked:
    """A process of killing_server's, as subprocess has its own."""

    def __init__(self, orders: socket.socket, pid: int) -> None:
        self._orders = orders
        self._pidfd = os.pidfd_open(pid)
        self._code: int | None = None
        self._lock = Lock()
        self.pid = pid

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        with self._lock:
            if self._code is None:
                if not select.select([self._pidfd], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("a forked server", timeout or 0)
                self._orders.send(str(self.pid).encode())
                self._code = int(self._orders.recv(16))
                os.close(self._pidfd)
            return self._code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, sig)


class DoomedServer(Server):
    """It kills itself behind a transaction when it is told to, see killing_server."""

    def __init__(self, root: Path, orders: socket.socket) -> None:
        self.kill_at = root / "kill-at"
        super().__init__(root, {"KILL_AT": str(self.kill_at)})
        self._orders = orders

    def spawn(self, log: IO[bytes]) -> Forked:
        order = json.dumps([self.env, ["red", "serve"]]).encode()
        socket.send_fds(self._orders, [order], [log.fileno()])
        return Forked(self._orders, int(self._orders.recv(16)))

    @property
    def dead(self) -> bool:
        """Whether it has been killed."""
        return self.process is None or self.process.poll() is not None


@contextmanager
def doomed_server() -> Iterator[DoomedServer]:
    """It has an image and a kernel."""
    orders, taken = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [sys.executable, "-m", "contract.killing_server"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, stdin=taken.fileno(), env=env), closing(orders), server_directory() as root:
        taken.close()
        server = DoomedServer(root, orders)
        server.start()
        (root / "tree").mkdir()
        (root / "tree" / "file").write_text("all that an image needs")
        server.images.RegisterImage(image_upload("tiny", root / "tree"))
        server.kernels.ImportKernel(kernel_upload("made-up", made_up.VMLINUX))
        try:
            yield server
        finally:
            if not server.dead:
                for vm in server.list():
                    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
                assert server.stop() == 0, server.said()
            no_process_left(server)


def state(server: Server, vm: vm_pb2.Vm) -> vm_pb2.VmState.ValueType:
    return server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm.state


def memory(server: Server, vm: vm_pb2.Vm) -> Path:
    """Where it is while the VM hibernates."""
    return server.state / "vms" / vm.id / "memory"


def all_is_in_order(server: Server) -> None:
    """Assert that nothing is left of what a server was in the middle of but VMs, each in a state that lasts, and
    snapshots that are whole."""
    _settled(server)
    vms, snapshots = server.list(), server.snapshot_list()
    running = {vm.id for vm in vms if vm.state in WITH_PROCESS}
    deadline = time.monotonic() + _END_SECONDS
    while (at_work := _at_work(server)) != running and time.monotonic() < deadline:
        time.sleep(0.01)  # what is in the guest of a fake VMM ends just behind that
    assert at_work == running, server.vmm_processes()
    for vm in vms:
        assert vm.state in LASTING, vm
        assert memory(server, vm).exists() == (vm.state == vm_pb2.VM_STATE_HIBERNATED), vm
        assert not [path.name for path in (server.state / "vms" / vm.id).iterdir() if path.name.endswith(".new")]
    known = {vm.id for vm in vms}
    assert {path.name for path in (server.state / "vms").iterdir()} == known
    assert {path.name for path in (server.socket.parent / "vms").iterdir()} == running
    assert {path.name for path in (server.state / "snapshots").iterdir()} == {each.id for each in snapshots}
    assert not [each for each in snapshots if not each.name and not each.used_by]
    with closing(sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True)) as db:
        assert db.execute("SELECT * FROM kept").fetchall() == []


def _settled(server: Server) -> None:
    """Wait until nothing is being done: a server that has recovered starts VMs that were to be started."""
    deadline = time.monotonic() + _END_SECONDS
    with closing(sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True)) as db:
        while db.execute(
            "SELECT op_id FROM journal UNION SELECT id FROM operations WHERE state = 'RUNNING'"
        ).fetchall():
            assert time.monotonic() < deadline, server.said()
            time.sleep(0.01)


def _at_work(server: Server) -> set[str]:
    """The ids of VMs that have processes; of one that is of no VM its command line."""
    found = set()
    for pid, line in server.vmm_processes().items():
        with suppress(FileNotFoundError, ProcessLookupError):
            directory = Path(f"/proc/{pid}/cwd").readlink()
            named = re.search(r"\bingle-([0-9a-f]{12})\b", line)
            found.add(named[1] if named else directory.name if directory.parent == server.state / "vms" else line)
    return found
