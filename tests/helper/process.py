"""A real helper process, as root, in a network namespace of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from helper.guests import Guest
from helper.namespaces import Namespace
from ingle.helper.v1 import helper_pb2 as pb
from ingle.helper.v1 import helper_pb2_grpc

UID = 23456
"""The API server's, in these tests."""

VM_UIDS = (30000, 30999)
_START_SECONDS = 30.0
_STOP_SECONDS = 60.0


def vm(number: int) -> str:
    """A VM's id."""
    return f"{number:012x}"


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; far longer than it can take on a machine that works."""
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _takes_calls(path: Path) -> bool:
    """A socket is there for a moment before anybody listens."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0


class Helper:
    """`ingle-helper serve`. Start, stop and kill it as often as a test likes; the journal stays."""

    def __init__(self, namespace: Namespace, root: Path, *flags: str, **policy: object) -> None:
        self.namespace = namespace
        self.root = root
        self.runtime = root / "run"
        self.socket = self.runtime / "helper.sock"
        self.state = root / "state"
        self.log = root / "log"
        self.policy = root / "helper.toml"
        self._flags = flags
        self._said = 0
        (self.state / "vms").mkdir(parents=True, exist_ok=True)
        for path in (self.state, self.state / "vms"):
            os.chown(path, UID, UID)
            path.chmod(0o700)
        keys = {"user": str(UID), "state_root": str(self.state), "vm_uids": list(VM_UIDS), "spare_taps": 0, **policy}
        self.policy.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
        self.policy.chmod(0o644)
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    def argv(self) -> list[str]:
        command = [sys.executable, "-m", "ingle.host_helper", "--policy", str(self.policy)]
        return [*self.namespace.enter, *command, "serve", "--runtime", str(self.runtime), *self._flags]

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not _takes_calls(self.socket):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the helper doesn't come up"
            time.sleep(0.02)
        self._channel = grpc.insecure_channel(f"unix:{self.socket}", options=[("grpc.use_local_subchannel_pool", 1)])

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(_STOP_SECONDS)
        self.process = None
        return code

    @property
    def channel(self) -> grpc.Channel:
        assert self._channel is not None
        return self._channel

    @property
    def stub(self) -> Any:
        return helper_pb2_grpc.HelperServiceStub(self.channel)

    def forget_audit(self) -> None:
        """What was said up to now is not this test's."""
        self._said = self.log.stat().st_size

    def said(self) -> str:
        return self.log.read_bytes()[self._said :].decode()

    def audit(self) -> list[dict[str, Any]]:
        """The lines about calls."""
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]
        return [line for line in lines if line["logger"] == "ingle.helper.audit"]

    def tap(self, slot: int, owner: int = 1) -> pb.Tap:
        """A tap, and its network if need be."""
        changes = [
            pb.Change(ensure_network=pb.EnsureNetworkRequest(network=slot >> 8)),
            pb.Change(create_tap=pb.CreateTapRequest(vm_id=vm(owner), slot=slot)),
        ]
        response = self.stub.Apply(pb.ApplyRequest(changes=changes))
        tap: pb.Tap = response.taps[0]
        return tap

    def nat(self, slot: int, owner: int = 1, enabled: bool = True) -> None:
        self.stub.SetNat(pb.SetNatRequest(vm_id=vm(owner), slot=slot, enabled=enabled))

    @contextmanager
    def guest(self, slot: int, owner: int = 1) -> Iterator[Guest]:
        """A tap with a guest behind it."""
        tap = self.tap(slot, owner)
        guest = Guest(self.namespace, tap.interface, UID, tap.mac, tap.ipv4, tap.ipv6)
        try:
            yield guest
        finally:
            guest.close()


@contextmanager
def helper_in_namespace(*flags: str, **policy: object) -> Iterator[Helper]:
    """One that runs, in a namespace that forwards packets."""
    # In memory, as /run is: the journal is synced with each call. Short: a socket's path has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="ingle-helper-", dir="/dev/shm"))
    root.chmod(0o755)
    namespace = Namespace()
    namespace.sysctl("ipv4/ip_forward", 1)
    namespace.sysctl("ipv6/conf/all/forwarding", 1)
    helper = Helper(namespace, root, *flags, **policy)
    try:
        helper.start()
        yield helper
    finally:
        helper.kill()
        namespace.close()
        shutil.rmtree(root)
