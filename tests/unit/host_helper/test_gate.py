"""The helper's accept gate, when there is too little of something."""

import os
import resource
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ingle.host_helper import gate as gate_module
from ingle.host_helper.gate import Gate


@pytest.fixture
def public() -> Iterator[Path]:
    """Of a gate before a server that sends back what it gets."""
    with tempfile.TemporaryDirectory(prefix="ingle-t-") as name:
        root = Path(name)
        upstream = socket.socket(socket.AF_UNIX)
        upstream.bind(str(root / "up.sock"))
        upstream.listen(1000)
        threading.Thread(target=_echo_all, args=(upstream,), daemon=True).start()
        gate = Gate(root / "helper.sock", root / "up.sock", {os.getuid()}, os.getgid())
        yield root / "helper.sock"
        gate.close()
        upstream.shutdown(socket.SHUT_RDWR)
        upstream.close()


def _echo_all(upstream: socket.socket) -> None:
    while True:
        try:
            caller, _ = upstream.accept()
        except OSError as error:
            if error.errno in gate_module._CLOSED:
                return
            continue
        threading.Thread(target=_echo, args=(caller,), daemon=True).start()


def _echo(caller: socket.socket) -> None:
    with caller, suppress(OSError):
        while data := caller.recv(65536):
            caller.sendall(data)


def _call(public: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(30)
        caller.connect(str(public))
        with suppress(ConnectionError):
            caller.sendall(b"x")
            return caller.recv(1)
        return b""


def _eventually_served(public: Path) -> None:
    for _ in range(1000):
        if _call(public) == b"x":
            return
    raise AssertionError("nobody answers")


@pytest.mark.parametrize("left", range(1, 5))
def test_without_descriptors_a_connection_waits_or_ends_and_is_told_once(
    public: Path, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    callers = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filler = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest + 1 - len(os.listdir("/proc/self/fd")))]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + left, before[1]))
        for caller in callers:
            caller.settimeout(0.1)
            caller.connect(str(public))
        with suppress(TimeoutError, ConnectionError):
            callers[-1].recv(1)
        assert sum(record.name == gate_module.__name__ for record in caplog.records) <= 3
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for caller in callers:
            caller.settimeout(30)
            with suppress(ConnectionError):
                caller.sendall(b"x")
                assert caller.recv(1) in {b"x", b""}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in filler:
            os.close(descriptor)
        for caller in callers:
            caller.close()
    _eventually_served(public)


def test_without_threads_a_connection_is_closed_and_the_next_is_served(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("ingle.host_helper.gate.threading.Thread", NoThread)
        for _ in range(gate_module.MOST_CONNECTIONS + 1):
            assert _call(public) == b""
    _eventually_served(public)
