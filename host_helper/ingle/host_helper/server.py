"""One helper process from lock to end."""

import fcntl
import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc

from ingle.helper.v1 import helper_pb2_grpc
from ingle.host_helper import capabilities
from ingle.host_helper.core import Core
from ingle.host_helper.gate import Gate, peer_of
from ingle.host_helper.journal import Journal
from ingle.host_helper.part import Part
from ingle.host_helper.policy import Policy
from ingle.host_helper.requests import Validator
from ingle.host_helper.service import HelperService, UnknownMethods
from ingle.version import VERSION

log = logging.getLogger(__name__)

SOCKET = "helper.sock"

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
_MESSAGE_LIMIT = 1024 * 1024
_MOST_CALLS = 64
_CALL_THREADS = 4  # calls take turns, but for those that only look around, and are slow
_GRACE_SECONDS = 30.0
_SOON_SECONDS = 0.2


class AlreadyServed(Exception):
    """Another helper has the runtime directory."""


def serve(policy: Policy, part: Part, runtime: Path) -> None:
    """Serve on `runtime`/helper.sock until SIGTERM or SIGINT. Raises AlreadyServed, OSError.

    `runtime` is root's, and on a file system that is empty after a boot: what the journal lists doesn't survive one."""
    # Blocked in every thread, and taken by the one below that waits for them: a handler would run in the middle of
    # whatever this thread does, and could deadlock with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    with ExitStack() as exits:
        lock = _lock(runtime / f"{SOCKET}.lock")
        exits.callback(os.close, lock)
        private = runtime / "private"
        shutil.rmtree(private, ignore_errors=True)
        private.mkdir(mode=0o700)
        exits.callback(shutil.rmtree, private, ignore_errors=True)
        journal = Journal(runtime / "journal")
        exits.callback(journal.close)
        worker = exits.enter_context(ThreadPoolExecutor(1, "worker"))
        soon = _Soon(worker)
        core = Core(policy, journal, part, lambda: soon.call(core.tidy))
        part.watch(lambda: soon.call(core.tidy))
        worker.submit(core.recover).result()
        exits.callback(lambda: worker.submit(part.close).result())
        allowed = frozenset({policy.uid, 0})
        service = HelperService(
            core, Validator(policy, part.number), part.number, allowed, lambda context: peer_of(context.peer())
        )
        calls = exits.enter_context(ThreadPoolExecutor(_CALL_THREADS, "call"))
        server = grpc.server(
            calls,
            options=(("grpc.max_receive_message_length", _MESSAGE_LIMIT), ("grpc.so_reuseport", 0)),
            maximum_concurrent_rpcs=_MOST_CALLS,
        )
        helper_pb2_grpc.add_HelperServiceServicer_to_server(service, server)
        server.add_generic_rpc_handlers((UnknownMethods(),))
        server.add_insecure_port(f"unix:{private}/grpc.sock")
        server.start()
        exits.callback(lambda: server.stop(_GRACE_SECONDS).wait())
        gate = Gate(runtime / SOCKET, private / "grpc.sock", allowed, policy.gid)
        exits.callback((runtime / SOCKET).unlink, missing_ok=True)
        exits.callback(gate.close)
        _tell_service_manager()
        told = {"version": VERSION, "socket": str(runtime / SOCKET), "uid": policy.uid}
        log.info("serving", extra={**told, "capabilities": capabilities.listed(capabilities.held().effective)})
        signal.sigwait(_ENDING)
        log.info("stopping")


def _tell_service_manager() -> None:
    """READY=1, see sd_notify(3); nothing where no service manager asked for it."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.sendto(b"READY=1", name.replace("@", "\0", 1) if name.startswith("@") else name)


class _Soon:
    """Has something called by the worker, a moment after it was first asked for."""

    def __init__(self, worker: ThreadPoolExecutor) -> None:
        self._worker = worker
        self._timer: threading.Timer | None = None

    def call(self, what: Callable[[], None]) -> None:
        if self._timer is None or not self._timer.is_alive():
            self._timer = threading.Timer(_SOON_SECONDS, self._submit, (what,))
            self._timer.daemon = True
            self._timer.start()

    def _submit(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the worker has ended, and with it the need
            self._worker.submit(what)


def _lock(path: Path) -> int:
    """Exclusive, until closed. The file stays: removing it would let two holders in."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyServed(f"another helper serves {path.parent}") from None
    return descriptor
