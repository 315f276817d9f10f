"""All of ingle: its gRPC interface as any client uses it, and a VM behind that."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import uuid4

from bench.measure import timed
from bench.subject import CHUNK, FIRST_WORD, SMALL_FILE
from bench.through_agent import SESSION
from harness import Server
from ingle.v1 import guest_pb2
from ingle.v1.upload_pb2 import UploadEnd


class ThroughApi:
    """A Subject: one VM of a server."""

    def __init__(self, server: Server, vm: str, directory: str) -> None:
        self._server = server
        self._guest = server.guest
        self._vm = vm
        self._directory = directory
        self._unpacked = ""

    def run(self) -> float:
        return timed(self._true)

    def first_byte(self) -> float:
        began = time.perf_counter()
        start = guest_pb2.ExecStart(vm=self._vm, argv=FIRST_WORD)
        call = self._guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
        next(response for response in call if response.stdout_data)
        took = time.perf_counter() - began
        call.cancel()
        return took

    def at_once(self, count: int) -> float:
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(lambda _: time.sleep(0), range(count)))
            return timed(lambda: list(threads.map(lambda _: self._true(), range(count))))

    def small_file(self) -> float:
        def write_and_read() -> None:
            self._write("small", iter([SMALL_FILE]))
            self._drain("small")

        return timed(write_and_read)

    def write(self, size: int) -> float:
        zeros = bytes(CHUNK)
        return timed(lambda: self._write("large", (zeros for _ in range(size // CHUNK))))

    def read(self, size: int) -> float:
        return timed(partial(self._drain, "large"))

    def copy_in(self, archive: bytes) -> float:
        if self._unpacked:
            self._guest.Remove(guest_pb2.RemoveRequest(vm=self._vm, path=self._unpacked, recursive=True))
        self._unpacked = f"{self._directory}/unpacked-{uuid4().hex[:8]}"
        self._guest.MakeDirectory(guest_pb2.MakeDirectoryRequest(vm=self._vm, path=self._unpacked))

        def requests() -> Iterator[guest_pb2.CopyInRequest]:
            yield guest_pb2.CopyInRequest(start=guest_pb2.CopyInStart(vm=self._vm, path=self._unpacked))
            for at in range(0, len(archive), CHUNK):
                yield guest_pb2.CopyInRequest(data=archive[at : at + CHUNK])
            yield guest_pb2.CopyInRequest(end=UploadEnd())

        return timed(lambda: self._guest.CopyIn(requests()))

    def copy_out(self) -> float:
        def drain() -> None:
            for _ in self._guest.CopyOut(guest_pb2.CopyOutRequest(vm=self._vm, path=self._unpacked)):
                pass

        return timed(drain)

    def attach(self) -> float:
        began = time.perf_counter()
        start = guest_pb2.AttachSessionStart(vm=self._vm, session_id=SESSION, steal=True)
        call = self._guest.AttachSession(iter([guest_pb2.AttachSessionRequest(start=start)]))
        next(iter(call))
        took = time.perf_counter() - began
        call.cancel()
        return took

    def _true(self) -> None:
        code, _, _ = self._server.run(self._vm, "true")
        assert code == 0

    def _write(self, name: str, data: Iterator[bytes]) -> None:
        def requests() -> Iterator[guest_pb2.WriteFileRequest]:
            yield guest_pb2.WriteFileRequest(
                start=guest_pb2.WriteFileStart(vm=self._vm, path=f"{self._directory}/{name}")
            )
            for piece in data:
                yield guest_pb2.WriteFileRequest(data=piece)
            yield guest_pb2.WriteFileRequest(end=UploadEnd())

        self._guest.WriteFile(requests())

    def _drain(self, name: str) -> None:
        for _ in self._guest.ReadFile(guest_pb2.ReadFileRequest(vm=self._vm, path=f"{self._directory}/{name}")):
            pass
