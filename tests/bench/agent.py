"""`make bench-agent`: the guest agent and the host's client of it, first without a VM and then in one.

Without a VM, the agent serves a unix socket, and each figure stands beside the same thing done with bare system calls;
in a VM, what ingle's interface takes stands beside what its agent alone takes. Both are measured in turn, in one run.
"""

import argparse
import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import go_benchmarks, least_agent
from bench.bare_client import exec_true, refused
from bench.measure import (
    HEADER,
    Figure,
    ProcessorTime,
    Row,
    absolute_row,
    alternately,
    difference_row,
    rss_mib,
    share_row,
    spread_row,
    timed,
    told_row,
    write_json,
)
from bench.native import native
from bench.raw import RawGuest
from bench.subject import Subject
from bench.through_agent import ThroughAgent, until_answered
from bench.through_api import ThroughApi
from harness import Server, cloned_directory, running_server, server_directory
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.guest.frames import Decoder, FrameType, encode
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.programs import agent_binary
from ingle.v1 import kernel_pb2, vm_pb2

HELD = 200
READY = b"ingle-agent ready\n"
MIB = 2**20
MEMORY_FILE_SYSTEM = "/dev/shm"

Timing = Callable[[], float]


@dataclass(frozen=True)
class Counts:
    """How often things are done."""

    calls: int
    batches: int
    transfers: int
    copies: int
    large: int  # bytes
    large_in_vm: int
    files: int


FULL = Counts(calls=500, batches=30, transfers=5, copies=5, large=2**30, large_in_vm=100 * 2**20, files=5000)
QUICK = Counts(calls=50, batches=5, transfers=2, copies=1, large=2**27, large_in_vm=100 * 2**20, files=500)


def on_a_socket(counts: Counts) -> Iterator[Row | Figure]:
    """The agent as a process, beside bare system calls."""
    with ExitStack() as stack:
        durable = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ingle-bench-")))
        bulk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ingle-bench-", dir=MEMORY_FILE_SYSTEM)))
        path = durable / "agent.sock"
        process = stack.enter_context(running_agent(path))
        runner = stack.enter_context(asyncio.Runner())
        channel = Dialler().channel(AgentEndpoint(UnixAddress(str(path))))
        runner.run(until_answered(channel))
        agent = ThroughAgent(runner, channel, str(durable), str(bulk))
        agent.create_session()
        bare = stack.enter_context(native(durable, bulk))
        yield Figure("agent binary", agent_binary().stat().st_size / MIB, "MiB", 6)
        yield Figure("agent RSS, idle", rss_mib(process.pid), "MiB", 12)

        ours, floor = alternately(counts.calls, agent.run, bare.run)
        yield spread_row("exec true", ours, "posix_spawn, wait", floor, 2, 3)
        lean = exec_true(path)
        yield beside(
            "exec true, by a client that parses nothing", "posix_spawn, wait", counts.calls, lean.ask, bare.run
        )
        yield from least_agent.rows(path, durable, bulk, counts.calls)
        yield from calls(agent, bare, counts, "bare system calls")
        held = agent.hold(HELD, lambda: rss_mib(process.pid))
        yield Figure(f"agent RSS, {HELD} commands running", held, "MiB", 20)
        sizes = (MIB, 10 * counts.batches), (counts.large, counts.transfers)
        pids, floor_pids = (os.getpid(), process.pid), (os.getpid(), bare.peer_pid)
        yield from transfers(agent, bare, "bare socket copy", sizes, pids, floor_pids)
        for size, count in sizes:
            agent.write(size), bare.write(size)
            name = f"read {_name(size)}"
            yield beside(
                name, "that of a file, sendfile(2)", count, partial(agent.read, size), partial(bare.read_file, size)
            )
        yield from directories(agent, bare, counts, "tar")
        yield start_of_process(counts)
        yield refusals(counts)


def in_a_vm(counts: Counts, server: Server) -> Iterator[Row | Figure]:
    """Through gRPC, beside the agent alone, in a VM that is the same: an agent talks to one server."""
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    with asyncio.Runner() as runner, RawGuest(server).answering(runner) as guest:
        agent = ThroughAgent(runner, guest.channel, "/root", "/root")
        agent.create_session()
        api = ThroughApi(server, vm.id, "/root")
        ours, floor = alternately(counts.calls, api.run, agent.run)
        yield difference_row("exec true", ours, "the agent alone", floor, 0.0015)
        yield from calls(api, agent, counts, "the agent alone")
        sizes = (MIB, counts.batches), (counts.large_in_vm, counts.transfers)
        assert server.process is not None
        pids, floor_pids = (os.getpid(), vm.pid, server.process.pid), (os.getpid(), guest.process.pid)
        yield from transfers(api, agent, "the agent alone", sizes, pids, floor_pids)
        yield from directories(api, agent, counts, "the agent alone")
    yield from share_of_boot(server, vm)
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def calls(subject: Subject, floor: Subject, counts: Counts, floor_name: str) -> Iterator[Row]:
    """What is quick."""
    for name, count, work, bare in (
        ("first byte of a stream", counts.calls // 5, subject.first_byte, floor.first_byte),
        ("10 execs at once", counts.batches, lambda: subject.at_once(10), lambda: floor.at_once(10)),
        ("50 execs at once", counts.batches, lambda: subject.at_once(50), lambda: floor.at_once(50)),
        ("1 KiB written to the disk and read", counts.calls, subject.small_file, floor.small_file),
        ("session attached", counts.calls, subject.attach, floor.attach),
    ):
        yield beside(name, floor_name, count, work, bare)


def directories(subject: Subject, floor: Subject, counts: Counts, floor_name: str) -> Iterator[Row]:
    """Many small files."""
    archive = archive_of(counts.files)
    name, count = f"directory of {counts.files} files copied", counts.copies
    yield beside(f"{name} in", floor_name, count, lambda: subject.copy_in(archive), lambda: floor.copy_in(archive))
    yield beside(f"{name} out", floor_name, count, subject.copy_out, floor.copy_out)


def beside(name: str, floor_name: str, count: int, work: Timing, floor: Timing) -> Row:
    """Both in turn, without a target."""
    ours, bare = alternately(count, work, floor)
    return told_row(name, ours, floor_name, bare)


def transfers(
    subject: Subject,
    floor: Subject,
    floor_name: str,
    sizes: Sequence[tuple[int, int]],
    pids: Sequence[int],
    floor_pids: Sequence[int],
) -> Iterator[Row]:
    """Files of (size, how often) written, and read; and how long all who take part worked for it."""
    for size, count in sizes:
        for verb, work, bare in (("write", subject.write, floor.write), ("read", subject.read, floor.read)):
            name, our_work, their_work = f"{verb} {_name(size)}", ProcessorTime(*pids), ProcessorTime(*floor_pids)
            ours, theirs = alternately(count, our_work.of(partial(work, size)), their_work.of(partial(bare, size)))
            yield share_row(name, ours, floor_name, theirs, size, 0.6)
            yield told_row(f"{name}, processor time", our_work.sample(), floor_name, their_work.sample())


def frames(counts: Counts) -> list[Row]:
    """The host's half of the protocol, beside one copy of the same bytes."""
    payload = bytes(64 * 1024)
    frame, decoder = encode(FrameType.STDOUT, payload), Decoder()

    def decode() -> None:
        rest = memoryview(frame)
        while rest:
            space = decoder.space()
            size = min(len(space), len(rest))
            space[:size] = rest[:size]
            rest = rest[size:]
            for _ in decoder.received(size):
                pass

    def copy() -> float:
        return timed(lambda: bytearray(payload))

    def encoding() -> float:
        return timed(lambda: encode(FrameType.STDOUT, payload))

    return [
        beside("frame of 64 KiB encoded", "copied once", counts.calls, encoding, copy),
        beside("frame of 64 KiB decoded", "copied once", counts.calls, lambda: timed(decode), copy),
    ]


def start_of_process(counts: Counts) -> Row:
    """From starting the agent to its first answer, beside starting it for nothing."""
    with tempfile.TemporaryDirectory(prefix="ingle-bench-") as directory, asyncio.Runner() as runner:

        def start() -> float:
            path = Path(directory) / "agent.sock"
            began = time.perf_counter()
            with running_agent(path):
                runner.run(until_answered(Dialler().channel(AgentEndpoint(UnixAddress(str(path))))))
                took = time.perf_counter() - began
            path.unlink()
            return took

        def floor() -> float:
            return timed(lambda: subprocess.run([agent_binary(), "--version"], stdout=subprocess.DEVNULL, check=True))

        ours, bare = alternately(counts.batches, start, floor)
        return absolute_row("agent started and answers", ours, "started, says its version", bare, 0.030)


def refusals(counts: Counts) -> Row:
    """How long a token that is wrong in its last byte takes to be refused, beside one that is so in its first."""
    with tempfile.TemporaryDirectory(prefix="ingle-bench-") as directory:
        path, token_file = Path(directory) / "agent.sock", Path(directory) / "token"
        token_file.write_bytes(bytes(32))
        with running_agent(path, "--token-file", str(token_file)):
            late, early = refused(path, bytes(31) + b"x"), refused(path, b"x" + bytes(31))
            name, floor_name = "wrong in its last byte: refused", "wrong in its first byte"
            return beside(name, floor_name, 10 * counts.calls, late.ask, early.ask)


@contextmanager
def running_agent(path: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """An agent that serves a unix socket."""
    argv = [str(agent_binary()), "--listen", f"unix:{path}", *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == READY
            yield process
        finally:
            process.kill()


def archive_of(files: int) -> bytes:
    """A tar archive of so many files of a kilobyte, a hundred in a directory."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(files):
            entry = tarfile.TarInfo(f"{number // 100}/{number}")
            entry.size = 1024
            tar.addfile(entry, io.BytesIO(bytes(1024)))
    return archive.getvalue()


def share_of_boot(server: Server, vm: vm_pb2.Vm) -> list[Figure]:
    """How much of the boot is the agent's, as the guest's kernel has it: from /init until the root disk is mounted,
    which is the first thing that the agent does after it has told that it is ready."""
    code, log, _ = server.run(vm.id, "dmesg")
    assert code == 0
    times = {
        name: float(found[1]) * 1000
        for name, pattern in (
            ("init", rb"\[ *([\d.]+)\] Run /init"),
            ("root", rb"\[ *([\d.]+)\] EXT4-fs \(\w+\): mounted"),
        )
        if (found := re.search(pattern, log))
    }
    return [
        Figure("guest's kernel until it starts the agent", times["init"], "ms"),
        Figure("agent from there until it is ready and the root disk is mounted", times["root"] - times["init"], "ms"),
    ]


def _name(size: int) -> str:
    """A size as people write it."""
    return f"{size // MIB} MiB" if size < 2**30 else f"{size // 2**30} GiB"


@contextmanager
def a_server(prepared: Path | None) -> Iterator[Server]:
    """A server that has a kernel and an image: made, or copied from where integration tests keep theirs."""
    with ExitStack() as stack:
        root = stack.enter_context(cloned_directory(prepared) if prepared else server_directory())
        server = stack.enter_context(running_server(root))
        if prepared is None:
            print("preparing kernel and image …", flush=True)
            server.kernels.PullKernel(kernel_pb2.PullKernelRequest(name="debian"))
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that it works")
    parser.add_argument("--no-vm", action="store_true", help="the agent on a socket only")
    parser.add_argument("--vm-only", action="store_true", help="the agent in a VM only")
    parser.add_argument("--prepared", type=Path, metavar="DIR", help="a directory that pytest --prepared has filled")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    arguments = parser.parse_args()
    counts = QUICK if arguments.quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # the floors fork
    rows: list[Row] = []
    figures: list[Figure] = []

    def tell(title: str, results: Iterable[Row | Figure]) -> None:
        print(f"{title}\n{HEADER}", flush=True)
        for result in results:
            print(result, flush=True)
            if isinstance(result, Row):
                rows.append(result)
            else:
                figures.append(result)

    if not arguments.vm_only:
        tell("the agent on a unix socket", on_a_socket(counts))
        tell("the protocol", (*frames(counts), *go_benchmarks.rows(counts.transfers)))
    if not arguments.no_vm:
        with a_server(arguments.prepared) as server:
            tell("in a VM", in_a_vm(counts, server))
    if arguments.json:
        write_json(arguments.json, rows, figures)


if __name__ == "__main__":
    main()
