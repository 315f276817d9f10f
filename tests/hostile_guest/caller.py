"""A server whose every VM is hostile, and who calls it."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from harness import Server, refusal, server_directory
from hostile_guest.cases import CASES, Case
from hostile_guest.server import HONEST
from ingle.api_server.adapters.guest.frames import FrameType
from ingle.v1 import guest_pb2, snapshot_pb2, vm_pb2

WATCHDOG_SECONDS = 30
LONG_ENOUGH_SECONDS = 2
ENOUGH_MESSAGES, ENOUGH_BYTES = 200, 8 * 1024 * 1024
TESTS = Path(__file__).parents[1]
SERVICES: Any = [
    *guest_pb2.DESCRIPTOR.services_by_name.values(),
    vm_pb2.DESCRIPTOR.services_by_name["VmService"],
    snapshot_pb2.DESCRIPTOR.services_by_name["SnapshotService"],
]
METHODS = {f"{service.name}.{method.name}": method for service in SERVICES for method in service.methods}
ENDLESS = "it does not end"


@contextmanager
def hostile_agents(directory: Path) -> Iterator[None]:
    directory.mkdir()
    command = [sys.executable, "-m", "hostile_guest.agent", str(directory)]
    agents = subprocess.Popen(command, cwd=TESTS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert agents.stdout is not None
        assert agents.stdout.readline() == "ready\n"
        yield
    finally:
        agents.kill()
        agents.communicate()


@contextmanager
def hostile_server() -> Iterator[Server]:
    """One that runs, and is killed at the end if it still does."""
    with server_directory() as root, hostile_agents(root / "agents"):
        server = Server(root, {"PYTHONPATH": str(TESTS)})
        server.argv = [sys.executable, "-m", "hostile_guest.server", str(root / "agents"), "serve"]
        server.start()
        try:
            yield server
        finally:
            assert server.process is not None
            if server.process.poll() is None:
                server.kill()


def applies(attack: str, case: Case) -> bool:
    """What is wrong inside a frame is tried where such a one is taken."""
    first, _, rest = attack.partition("-")
    if first in FrameType.__members__:
        return FrameType[first] in case.frames
    kind, _, size = rest.partition("-")
    return first != "endless" or size == "empty" or FrameType[kind] in {FrameType.RESPONSE} | case.endless | case.frames


def may_be_endless(attack: str, case: Case) -> bool:
    """Whether content may come for ever, or never: a command may be silent for a day. The caller can leave, and others
    don't notice."""
    return attack in {f"endless-{kind.name}-{size}" for kind in case.endless for size in ("tiny", "large")} or (
        attack in ("drip", "drip-of-data") and FrameType.WINDOW in case.frames
    )


class Caller:
    """Makes calls to hostile guests, and sees that others are answered meanwhile."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._left = threading.Event()
        self.others: list[float] = []

    def begin(self, name: str, attack: str) -> Any:
        """The call; one that sends more than once does not end by itself."""
        service, _, method = name.partition(".")
        stubs = {"GuestService": self._server.guest, "SnapshotService": self._server.snapshots}
        stub = getattr(stubs.get(service, self._server.vms), method)
        messages = CASES[name].messages(attack)
        patience = LONG_ENOUGH_SECONDS if may_be_endless(attack, CASES[name]) else WATCHDOG_SECONDS
        if METHODS[name].client_streaming:
            call = stub.future if not METHODS[name].server_streaming else stub
            return call(self._and_stay(messages), timeout=patience)
        if METHODS[name].server_streaming:
            return stub(messages[0], timeout=patience)
        return stub.future(messages[0], timeout=patience)

    def outcome(self, name: str, attack: str) -> str:
        """A reason, "" for success, or ENDLESS."""
        call = self.begin(name, attack)
        try:
            if not METHODS[name].server_streaming:
                call.result()
                return ""
            count = size = 0
            for response in call:
                count, size = count + 1, size + response.ByteSize()
                if count > ENOUGH_MESSAGES or size > ENOUGH_BYTES:
                    return ENDLESS
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return ENDLESS
            return refusal(error).reason
        else:
            return ""
        finally:
            call.cancel()

    def another_is_answered(self) -> None:
        """Somebody else asks for something, and gets it; `others` has how long it took."""
        began = time.perf_counter()
        self._server.vms.GetVm(vm_pb2.GetVmRequest(vm=HONEST), timeout=WATCHDOG_SECONDS)
        self.others.append(time.perf_counter() - began)

    def leave(self) -> None:
        """Nothing more is sent."""
        self._left.set()

    def _and_stay(self, messages: Sequence[Any]) -> Iterator[Any]:
        yield from messages
        self._left.wait()
