"""The floor of the agent: the same things done with nothing but system calls."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import timed
from bench.subject import CHUNK, FIRST_WORD, SMALL_FILE

_ORDER = struct.Struct("!BQ")  # what the peer does, and with how many bytes:
_TAKE, _SEND, _SEND_FILE = range(3)  # it writes them into its file; sends them from memory, or from that file

_PEER = f"""
import os, socket, struct, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(8)
print(flush=True)
buffer = bytearray({CHUNK})
view = memoryview(buffer)
while True:
    stream, _ = listener.accept()
    with stream:
        order, left = struct.unpack("{_ORDER.format}", stream.recv({_ORDER.size}, socket.MSG_WAITALL))
        while left and order == {_SEND}:
            stream.sendall(view[:left])
            left -= min(left, {CHUNK})
        if order == {_SEND_FILE}:
            with open(sys.argv[2], "rb") as file:
                stream.sendfile(file)
        if order == {_TAKE}:
            with open(sys.argv[2], "wb", buffering=0) as file:
                while left:
                    size = stream.recv_into(buffer)
                    file.write(view[:size])
                    left -= size
                os.fsync(file.fileno())
            stream.sendall(b"x")
"""


class Native:
    """A Subject. Bulk data crosses a unix socket: from another process' memory, or into a file of its."""

    def __init__(self, directory: Path, peer: Path, peer_pid: int) -> None:
        self.peer_pid = peer_pid
        self._directory = directory
        self._peer = peer
        self._true = shutil.which("true") or "true"

    def run(self) -> float:
        return timed(lambda: os.waitpid(self._spawn_true(), 0))

    def first_byte(self) -> float:
        reader, writer = os.pipe()
        began = time.perf_counter()
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
        pid = os.posix_spawnp(FIRST_WORD[0], FIRST_WORD, os.environ, file_actions=actions, setsid=True)
        os.read(reader, 100)
        took = time.perf_counter() - began
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
        return took

    def at_once(self, count: int) -> float:
        def spawn_all() -> None:
            for pid in [self._spawn_true() for _ in range(count)]:
                os.waitpid(pid, 0)

        return timed(spawn_all)

    def small_file(self) -> float:
        return timed(self._write_and_read)

    def write(self, size: int) -> float:
        def send() -> None:
            left = size
            with self._order(_TAKE, size) as stream:
                while left:
                    stream.sendall(memoryview(zeros)[:left])
                    left -= min(left, CHUNK)
                stream.recv(1)

        zeros = bytes(CHUNK)
        return timed(send)

    def read(self, size: int) -> float:
        return timed(lambda: self._receive(_SEND, size))

    def read_file(self, size: int) -> float:
        """What `write` wrote."""
        return timed(lambda: self._receive(_SEND_FILE, size))

    def copy_in(self, archive: bytes) -> float:
        target = self._directory / "unpacked"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        return timed(lambda: subprocess.run(["tar", "-x", "-C", str(target)], input=archive, check=True))

    def copy_out(self) -> float:
        argv = ["tar", "-c", "-C", str(self._directory), "unpacked"]
        return timed(lambda: subprocess.run(argv, stdout=subprocess.PIPE, check=True))

    def attach(self) -> float:
        def ask() -> None:
            with self._order(_SEND, 1) as stream:
                stream.recv(1)

        return timed(ask)

    def _spawn_true(self) -> int:
        return os.posix_spawn(self._true, ("true",), os.environ, setsid=True)

    def _write_and_read(self) -> None:
        path, temporary = self._directory / "small", self._directory / "temporary"
        with temporary.open("wb", buffering=0) as file:
            file.write(SMALL_FILE)
            os.fsync(file.fileno())
        temporary.rename(path)
        directory = os.open(self._directory, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        with path.open("rb", buffering=0) as file:
            file.read()

    def _receive(self, order: int, size: int) -> None:
        left, buffer = size, bytearray(CHUNK)
        with self._order(order, size) as stream:
            while left:
                left -= stream.recv_into(buffer)

    def _order(self, order: int, size: int) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(str(self._peer))
        stream.sendall(_ORDER.pack(order, size))
        return stream


@contextmanager
def native(directory: Path, bulk: Path) -> Iterator[Native]:
    """With the process at the other end of its socket, which writes files in `bulk`."""
    path = directory / "peer.sock"
    with subprocess.Popen([sys.executable, "-c", _PEER, path, bulk / "floor"], stdout=subprocess.PIPE) as peer:
        try:
            assert peer.stdout is not None
            peer.stdout.readline()
            yield Native(directory, path, peer.pid)
        finally:
            peer.kill()
