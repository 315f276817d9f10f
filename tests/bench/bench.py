"""`make bench`: how fast is ingle, beside what nothing could be faster than, in one run.

Prints milliseconds at p50/p95/p99 and each target's verdict. It never fails a build: machines are noisy, and a ratio
that misses its target is for a person to look at.
"""

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.hostile import beside_hostile_guests
from bench.measure import (
    Figure,
    Row,
    Sample,
    absolute_row,
    alternately,
    difference_row,
    ratio_row,
    rss_mib,
    table,
    timed,
    told_row,
    write_json,
)
from bench.raw import RawGuest
from bench.warm import begin_warm
from harness import Server, running_server, server_directory
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.model.guest import ExecSpec
from ingle.api_server.model.ids import new_vm_id, new_vm_name
from ingle.api_server.model.vm import VmState
from ingle.api_server.ports.guest import GuestChannel
from ingle.v1 import guest_pb2, kernel_pb2, system_pb2, vm_pb2

STORED_VMS = 500
MOST_IDLE_RSS_MIB = 90


def create_to_first_exec(server: Server, count: int) -> Row:
    """From the create call to the answer of the first command, beside a bare QEMU until its agent answers."""
    raw = RawGuest(server)
    boot = vm_pb2.VmSpec(boot_mode=vm_pb2.BOOT_MODE_COLD)

    def through_ingle() -> float:
        began = time.perf_counter()
        vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=boot)).vm
        code, out, _ = server.run(vm.id, "echo", "hello")
        took = time.perf_counter() - began
        assert (code, out) == (0, b"hello\n")
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
        return took

    sample, floor = alternately(count, through_ingle, raw.boot_seconds)
    return ratio_row("create -> first exec result", sample, "raw QEMU boot until agent answers", floor, 1.25)


def exec_round_trip(server: Server, count: int) -> list[Row]:
    """A command through gRPC, as a stream and as one question, beside the same one straight from the agent of
    another VM: an agent talks to one server."""
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
    question = guest_pb2.RunRequest(start=guest_pb2.ExecStart(vm=vm.id, argv=["true"]))
    ways = {"exec true": lambda: server.run(vm.id, "true"), "run true": lambda: server.guest.Run(question)}
    rows = []
    with asyncio.Runner() as runner, RawGuest(server).answering(runner) as guest:
        for name, way in ways.items():
            sample, floor = alternately(
                count, partial(timed, way), lambda: timed(lambda: runner.run(_true(guest.channel)))
            )
            rows.append(difference_row(name, sample, "the agent alone", floor, 0.0015))
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
    return rows


def stop_and_delete(server: Server, count: int) -> list[Row]:
    """Stop beside the same requests made by hand; delete beside removing as many files."""
    stops, floors, deletes, removals = [], [], [], []
    for _ in range(count):
        vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
        stops.append(timed(partial(server.vms.StopVm, vm_pb2.StopVmRequest(vm=vm.id))))
        copy = server.root / "removed"
        shutil.copytree(server.state / "vms" / vm.id, copy)
        removals.append(timed(partial(shutil.rmtree, copy)))
        deletes.append(timed(partial(server.vms.DeleteVm, vm_pb2.DeleteVmRequest(vm=vm.id))))
        floors.append(RawGuest(server).stop_seconds())
    return [
        told_row("stop", Sample(tuple(stops)), "sync, shutdown, wait by hand", Sample(tuple(floors))),
        told_row("delete", Sample(tuple(deletes)), "removing the same files", Sample(tuple(removals))),
    ]


def list_of_many(server: Server, count: int) -> Row:
    """A list of 500 stored VMs, beside a ping."""
    sample, floor = alternately(
        count,
        lambda: timed(server.list),
        lambda: timed(lambda: server.system.Ping(system_pb2.PingRequest())),
    )
    assert len(server.list()) == STORED_VMS
    return absolute_row(f"list of {STORED_VMS}", sample, "ping", floor, 0.010)


def command_line(server: Server, count: int) -> list[Row]:
    """Whole processes, by their processor time: what a start costs, however long it has to wait for a processor."""
    ingle = str(Path(sys.executable).with_name("ingle"))

    def process(*argv: str) -> float:
        started = subprocess.Popen(argv, env=server.env, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
        assert started.returncode == 0, argv
        return usage.ru_utime + usage.ru_stime

    def bare() -> float:
        return process(sys.executable, "-c", "pass")

    listing, floor = alternately(count, lambda: process(ingle, "vm", "list"), bare)
    helping, help_floor = alternately(count, lambda: process(ingle, "--help"), bare)
    return [
        ratio_row("ingle vm list, processor time", listing, "python3 -c pass", floor, 7),
        ratio_row("ingle --help, processor time", helping, "python3 -c pass", help_floor, 7),
    ]


def idle_memory(server: Server) -> list[Figure]:
    """Resident memory of an idle server, beside a Python that has only imported grpc."""
    assert server.process is not None
    rss = rss_mib(server.process.pid)
    code = "import grpc, grpc.aio, sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bare:
        assert bare.stdout is not None
        bare.stdout.readline()
        floor = rss_mib(bare.pid)
        bare.communicate()
    return [
        Figure("idle server RSS", rss, "MiB", MOST_IDLE_RSS_MIB),
        Figure("RSS of Python with grpc alone", floor, "MiB"),
    ]


async def _true(agent: GuestChannel) -> None:
    async with agent.exec(ExecSpec(("true",))) as session:
        async for _ in session.events():
            pass


@contextmanager
def stored_vms(server: Server) -> Iterator[None]:
    """500 VMs that were created and never started, written while the server is away."""
    template = server.vms.CreateVm(vm_pb2.CreateVmRequest(no_start=True)).vm
    server.stop()

    async def insert() -> None:
        async with SqliteStore(server.state / "ingle.db") as store:
            vm = await store.vms.get(template.id)
            for _ in range(STORED_VMS - 1):
                copy = replace(
                    vm, id=new_vm_id(), name=new_vm_name(), state=VmState.CREATING, created_at=datetime.now(UTC)
                )
                await store.vms.insert(copy, bytes(32))
                await store.vms.move(copy.id, VmState.STOPPED)

    asyncio.run(insert())
    server.start()
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    arguments = parser.parse_args()
    quick = arguments.quick
    boots, calls, processes = (2, 20, 5) if quick else (12, 300, 30)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with server_directory() as root, running_server(root, {"INGLE_WARM": "false"}) as server:
        print("preparing kernel and image …", flush=True)
        server.kernels.PullKernel(kernel_pb2.PullKernelRequest(name="debian"))
        memory = idle_memory(server)
        server.vms.DeleteVm(
            vm_pb2.DeleteVmRequest(vm=server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm.id, force=True)
        )  # the first one makes the image and probes KVM
        rows = [create_to_first_exec(server, boots), *exec_round_trip(server, calls)]
        for told in begin_warm(server, boots):
            rows.append(told) if isinstance(told, Row) else memory.append(told)
        rows += stop_and_delete(server, max(2, boots // 2))
        rows += command_line(server, processes)
        with stored_vms(server):
            rows.append(list_of_many(server, calls))
        row, figures = beside_hostile_guests(calls)
        rows.append(row)
        memory += figures
        print(table(rows))
        print(*memory, sep="\n")
        if arguments.json:
            write_json(arguments.json, rows, memory)


if __name__ == "__main__":
    main()
