"""A real server process in directories of its own, for tests that talk to it as any client would."""

import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from ingle.v1 import (
    event_pb2_grpc,
    guest_pb2,
    guest_pb2_grpc,
    image_pb2_grpc,
    kernel_pb2_grpc,
    operation_pb2_grpc,
    snapshot_pb2,
    snapshot_pb2_grpc,
    system_pb2_grpc,
    vm_pb2,
    vm_pb2_grpc,
)

_START_SECONDS = 30.0
_STOP_SECONDS = 60.0
_END_SECONDS = 10.0


class Spawned(Protocol):
    """A process, as subprocess has them."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class Client:
    """A server's, whoever runs that. `state`: the server's directory."""

    def __init__(self, socket: Path, state: Path) -> None:
        self.socket = socket
        self.state = state
        self._channel: grpc.Channel | None = None

    def connect(self) -> None:
        """Wait until it answers."""
        # A pool of its own: grpc shares connections by address, and with them the wait before the next attempt at one
        # that an earlier server of the same address was killed on.
        options = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
        self._channel = grpc.insecure_channel(f"unix:{self.socket}", options=options)
        grpc.channel_ready_future(self._channel).result(_START_SECONDS)

    def disconnect(self) -> None:
        """Let go of it."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def channel(self) -> grpc.Channel:
        assert self._channel is not None
        return self._channel

    @property
    def system(self) -> system_pb2_grpc.SystemServiceStub:
        return system_pb2_grpc.SystemServiceStub(self.channel)

    @property
    def operations(self) -> operation_pb2_grpc.OperationServiceStub:
        return operation_pb2_grpc.OperationServiceStub(self.channel)

    @property
    def vms(self) -> vm_pb2_grpc.VmServiceStub:
        return vm_pb2_grpc.VmServiceStub(self.channel)

    @property
    def guest(self) -> guest_pb2_grpc.GuestServiceStub:
        return guest_pb2_grpc.GuestServiceStub(self.channel)

    @property
    def images(self) -> image_pb2_grpc.ImageServiceStub:
        return image_pb2_grpc.ImageServiceStub(self.channel)

    @property
    def kernels(self) -> kernel_pb2_grpc.KernelServiceStub:
        return kernel_pb2_grpc.KernelServiceStub(self.channel)

    @property
    def events(self) -> event_pb2_grpc.EventServiceStub:
        return event_pb2_grpc.EventServiceStub(self.channel)

    @property
    def snapshots(self) -> snapshot_pb2_grpc.SnapshotServiceStub:
        return snapshot_pb2_grpc.SnapshotServiceStub(self.channel)

    def snapshot_list(self) -> "list[snapshot_pb2.Snapshot]":
        """All snapshots."""
        return list(self.snapshots.ListSnapshots(snapshot_pb2.ListSnapshotsRequest()).snapshots)

    def list(self) -> list[vm_pb2.Vm]:
        """All VMs."""
        return list(self.vms.ListVms(vm_pb2.ListVmsRequest()).vms)

    def run(self, vm: str, *argv: str, stdin: bytes | None = None, **fields: Any) -> tuple[int, bytes, bytes]:
        """Run a command in a VM: exit code, stdout, stderr."""
        start = guest_pb2.ExecStart(vm=vm, argv=argv, open_stdin=stdin is not None, **fields)
        requests = [guest_pb2.ExecRequest(start=start)]
        data = stdin or b""
        requests += [guest_pb2.ExecRequest(stdin_data=data[at : at + 2**18]) for at in range(0, len(data), 2**18)]
        if stdin is not None:
            requests.append(guest_pb2.ExecRequest(stdin_eof=guest_pb2.ExecStdinEof()))
        out, err = bytearray(), bytearray()
        for response in self.guest.Exec(iter(requests)):
            out += response.stdout_data
            err += response.stderr_data
            if response.HasField("exited"):
                return response.exited.exit_code, bytes(out), bytes(err)
        raise AssertionError("the stream ended without an exit")


class Server(Client):
    """`ingle-server serve` over XDG directories below `root`. Start and stop it as often as a test likes."""

    def __init__(self, root: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(root / "run" / "ingle" / "api.sock", root / "state" / "ingle")
        self.root = root
        self.argv = [sys.executable, "-m", "ingle.api_server", "serve", "--log-level", "debug"]
        self.env = {
            **os.environ,
            "XDG_STATE_HOME": str(root / "state"),
            "XDG_CACHE_HOME": str(root / "cache"),
            "XDG_CONFIG_HOME": str(root / "config"),
            "XDG_RUNTIME_DIR": str(root / "run"),
            **(env or {}),
        }
        self.env.pop("INGLE_SOCKET", None)
        self.runtime = self.socket.parent
        self.log = root / "server.log"
        self.process: Spawned | None = None
        (root / "run").mkdir(mode=0o700, exist_ok=True)

    def start(self) -> "Server":
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = self.spawn(log)
        deadline = time.monotonic() + _START_SECONDS
        while not self.socket.exists():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)
        self.connect()
        return self

    def spawn(self, log: IO[bytes]) -> Spawned:
        """The process, which says what it does to `log`."""
        return subprocess.Popen(
            self.argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        return self._end(signal.SIGTERM)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-6000:]

    def vmm_processes(self) -> dict[int, str]:
        """Live processes that belong to this server's VMs or tools, by pid: their command lines. But for bubblewrap,
        which has that of its VMM in its own."""
        return {pid: line for pid, line in self.processes().items() if Path(line.split(" ")[0]).name != "bwrap"}

    def processes(self) -> dict[int, str]:
        """All of them."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            mine = str(self.root) in line or str(self.root).encode() in environment
            if mine and state != "Z" and int(entry.name) not in {os.getpid(), self.process.pid if self.process else 0}:
                found[int(entry.name)] = line
        return found

    def _end(self, number: int) -> int:
        self.disconnect()
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(_STOP_SECONDS)


NewServer = Callable[..., Server]
"""What the fixture `new_server` gives: call it, with environment variables if need be."""


@contextmanager
def server_directory() -> Iterator[Path]:
    """A short directory: socket paths have room for 107 bytes only."""
    path = Path(tempfile.mkdtemp(prefix="ingle-t-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """No other process is in here with the same file."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def cloned_directory(source: Path, warm: Path | None = None) -> Iterator[Path]:
    """A copy of another server's state and caches, holes and all. Memories in `warm`, which VMs begin with, are no
    copies but the same files: they are only read, and together they are in the host's memory once."""
    with server_directory() as root:
        for name in ("state", "cache"):
            subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", source / name, root / name], check=True)
        if warm is not None:
            for entry in warm.iterdir():
                subprocess.run(["cp", "-a", "--link", entry, warm_cache(root) / entry.name], check=True)
        yield root


def warm_cache(root: Path) -> Path:
    """Where a server with its directories there has memories that VMs begin with."""
    path = root / "cache" / "ingle" / "warm"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@contextmanager
def running_server(root: Path, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server that is stopped at the end, with every VM it has."""
    server = Server(root, env).start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            for vm in server.list():
                server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
            assert server.stop() == 0, server.said()
        no_process_left(server)


def no_process_left(server: Server) -> None:
    """Assert that no process of its VMs is there. Those in the guest of a fake VMM end just behind that."""
    deadline = time.monotonic() + _END_SECONDS
    while server.processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.processes() == {}


def nothing_left(server: Server) -> None:
    """Assert that no VM, process, file, socket or open journal entry is there."""
    assert server.list() == []
    no_process_left(server)
    assert list((server.state / "vms").iterdir()) == []
    assert list((server.state / "snapshots").iterdir()) == []
    assert list((server.runtime / "vms").iterdir()) == []
    for library in ("images", "kernels"):
        strays = [path for path in (server.state / library).iterdir() if len(path.name) != 64 and any(path.iterdir())]
        assert strays == []
    with sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True) as db:
        assert db.execute("SELECT * FROM journal").fetchall() == []
        assert db.execute("SELECT * FROM kept").fetchall() == []
        assert db.execute("SELECT id FROM operations WHERE state = 'RUNNING'").fetchall() == []


@dataclass(frozen=True)
class Refusal:
    """How a call failed, as its caller is told."""

    code: grpc.StatusCode
    reason: str
    message: str
    remedy: str
    op_id: str
    metadata: Mapping[str, str]
    """Of ErrorInfo."""


def refusal(error: grpc.RpcError) -> Refusal:
    """What an error says, after checking that its parts agree as they must for every error of ours."""
    metadata: dict[str, str | bytes] = dict(error.trailing_metadata())  # type: ignore[arg-type]
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert status.message == error.details()
    assert status.code == error.code().value[0]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "ingle"
    assert info.metadata["op_id"] == metadata["ingle-op-id"]
    facts = dict(info.metadata)
    return Refusal(error.code(), info.reason, status.message, facts.get("remedy", ""), facts["op_id"], facts)


def refused(call: Callable[..., object], *arguments: object, **keywords: object) -> Refusal:
    """Make a call that must fail."""
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, **keywords)
    return refusal(raised.value)
