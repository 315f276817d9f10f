"""`make bench-memory`: what it takes to keep a guest's memory and to go on from it, beside the same QEMU by hand.

At the port of the engine, so nothing of operations, disks or identities is in it. Both are done in turn, in one run.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from bench.measure import (
    Figure,
    Row,
    Sample,
    alternately,
    difference_row,
    ratio_row,
    sum_row,
    table,
    write_json,
)
from bench.raw_memory import RawQemu
from bench.snapshots import SnapshotBench
from harness import cloned_directory, running_server, server_directory
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.adapters.vmm.cage import Cage, View
from ingle.api_server.host.caged import spawn_caged
from ingle.api_server.host.process import Process
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import GuestError
from ingle.api_server.model.guest import AgentEndpoint, SerialAddress
from ingle.api_server.ports.engine import LaunchPlan, VmPaths
from ingle.api_server.ports.guest import GuestChannel
from ingle.v1 import kernel_pb2, vm_pb2
from integration.engine_guests import TOKEN, Guest, Guests, Saved, saved

MIB = 2**20
MEMORY = 512 * MIB
MANY = 10
_PROGRAM = "/usr/bin/true"


class Bench:
    """Guests of the engine's and raw ones, over one memory."""

    def __init__(self, runner: asyncio.Runner, guests: Guests) -> None:
        self._runner, self._run = runner, runner.run
        self._guests = guests
        self._fresh = (guests.root / f"memory-{number}" for number in count())

    @contextmanager
    def running(self, plan: LaunchPlan) -> Iterator[Guest]:
        """One of the engine's that answers."""
        context = self._guests.running(plan)
        yield self._run(context.__aenter__())
        self._run(context.__aexit__(None, None, None))

    def save_and_load(self, times: int) -> Iterator[Row | Figure]:
        """A guest that has booted, and what goes on from it."""
        with self.running(self._run(self._guests.plan())) as guest:
            self._run(guest.run("sync"))
            cold = pss_mib(guest.vmm.pid)
            yield resume_and_exec(self._run, guest, times)
            self._run(guest.vmm.pause())
            kept = self._run(saved(guest, self._guests.root / "kept"))
            with self._raw(kept) as raw:
                ours, floor = alternately(times, partial(self._save, guest), partial(self._save_raw, raw))
            yield ratio_row("save, until it is on the disk", ours, "the same by QMP, fsync", floor, 1.2)
        stream = (kept.memory / "stream").stat().st_size
        yield Figure("saved, of 512 MiB", stream / MIB, "MiB")
        ours, floor = alternately(times, partial(self._load, kept), partial(self._load_raw, kept, None))
        yield sum_row("load, until the agent answers", ours, "the same by QMP", floor, 1.2, 0.03)
        copy = Saved(self._guests.root / "shared", kept.disk)
        shutil.copytree(kept.memory, copy.memory)
        began = time.perf_counter()
        self._run(self._guests.engine.share(self._run(self._guests.plan(memory=copy.memory)).vm, copy.memory))
        yield Figure("shared, once", (time.perf_counter() - began) * 1000, "ms")
        ram = copy.memory / "ram"
        yield Figure("shared, on the disk", ram.stat().st_blocks * 512 / MIB, "MiB")
        ours, floor = alternately(times, partial(self._load, copy), partial(self._load_raw, copy, ram))
        yield sum_row("fork, until the agent answers", ours, "the same by QMP", floor, 1.2, 0.03)
        yield from self._many(copy, ours, cold)
        with self.running(self._run(self._guests.plan())) as guest:
            yield from SnapshotBench(self._runner, self._guests, guest).figures()

    def _many(self, kept: Saved, one: Sample, cold: float) -> Iterator[Row | Figure]:
        """At once."""
        plans = [self._run(self._guests.plan(memory=kept.memory, disk=kept.disk)) for _ in range(MANY)]

        async def all_answer(stack: "asyncio.Future[None]") -> list[float]:
            """Memory of each when all have answered."""
            answered: asyncio.Queue[int] = asyncio.Queue()

            async def one_of_them(plan: LaunchPlan) -> None:
                async with self._guests.running(plan) as guest:
                    answered.put_nowait(guest.vmm.pid)
                    await stack

            tasks = [asyncio.create_task(one_of_them(plan)) for plan in plans]
            pids = [await answered.get() for _ in tasks]
            self._took = time.perf_counter() - began
            sizes = [pss_mib(pid) for pid in pids]
            stack.set_result(None)
            await asyncio.gather(*tasks)
            return sizes

        async def measure() -> list[float]:
            return await all_answer(asyncio.get_running_loop().create_future())

        began = time.perf_counter()
        sizes = self._run(measure())
        yield Figure(f"{MANY} forks at once, beside one", self._took / one.percentile(50), "x")
        yield Figure("PSS of a guest that has booted", cold, "MiB")
        yield Figure(f"PSS of one of {MANY} forks, beside that", sum(sizes) / len(sizes) / cold, "x", 0.3)

    def _save(self, guest: Guest) -> float:
        directory = next(self._fresh)
        directory.mkdir()
        self._run(guest.vmm.resume())
        self._run(guest.vmm.pause())
        began = time.perf_counter()
        self._run(guest.vmm.save(directory))
        took = time.perf_counter() - began
        shutil.rmtree(directory)
        return took

    def _save_raw(self, raw: RawQemu) -> float:
        path = next(self._fresh)
        raw.go_on()
        raw.stop()
        began = time.perf_counter()
        raw.save(path)
        took = time.perf_counter() - began
        path.unlink()
        return took

    def _load(self, kept: Saved) -> float:
        plan = self._run(self._guests.plan(memory=kept.memory, disk=kept.disk))
        began = time.perf_counter()
        with self.running(plan):
            return time.perf_counter() - began

    def _load_raw(self, kept: Saved, ram: Path | None) -> float:
        plan = self._run(self._guests.plan(memory=kept.memory, disk=kept.disk))
        dialler = Dialler()
        channel = dialler.channel(AgentEndpoint(SerialAddress(str(plan.paths.agent_socket)), TOKEN))
        began = time.perf_counter()
        raw = RawQemu(plan, ram)
        try:
            raw.go_on()
            self._run(answered(channel))
            return time.perf_counter() - began
        finally:
            dialler.close()
            raw.close()

    @contextmanager
    def _raw(self, kept: Saved) -> Iterator[RawQemu]:
        raw = RawQemu(self._run(self._guests.plan(memory=kept.memory, disk=kept.disk)))
        try:
            yield raw
        finally:
            raw.close()


async def answered(channel: GuestChannel) -> None:
    """A ping."""
    while True:
        try:
            await channel.ping()
        except GuestError:
            continue
        return


def resume_and_exec(run: Callable[..., object], guest: Guest, times: int) -> Row:
    """A command in a guest that stood still, beside one in a guest that ran."""

    def after_a_pause() -> float:
        run(guest.vmm.pause())
        began = time.perf_counter()
        run(guest.vmm.resume())
        run(guest.run("true"))
        return time.perf_counter() - began

    def at_once() -> float:
        began = time.perf_counter()
        run(guest.run("true"))
        return time.perf_counter() - began

    ours, floor = alternately(times * 2, after_a_pause, at_once)
    return difference_row("resume, exec true", ours, "exec true", floor, 0.003)


def pss_mib(pid: int) -> float:
    """Of a process, its share of what it shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--prepared", type=Path, metavar="DIR", help="with kernel and image, as for the tests")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        if arguments.prepared is None:
            root = stack.enter_context(server_directory())
            print("preparing kernel and image …", flush=True)
            with running_server(root) as server:
                server.kernels.PullKernel(kernel_pb2.PullKernelRequest(name="debian"))
                vm = server.vms.CreateVm(vm_pb2.CreateVmRequest()).vm
                server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
        else:
            (kept,) = (found for found in arguments.prepared.iterdir() if (found / "state").is_dir())
            root = stack.enter_context(cloned_directory(kept))
        runner = stack.enter_context(asyncio.Runner())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ingle-memory-")))
        guests = runner.run(prepared_guests(root, scratch))
        times = 5 if arguments.quick else 20
        rows = [started_in_namespaces(runner.run, scratch, 4 * times)]
        figures: list[Figure] = []
        for result in Bench(runner, guests).save_and_load(times):
            (rows if isinstance(result, Row) else figures).append(result)  # type: ignore[arg-type]
        print(table(rows))
        print(*figures, sep="\n")
        if arguments.json:
            write_json(arguments.json, rows, figures)


def started_in_namespaces(run: Callable[[Coroutine[None, None, float]], float], scratch: Path, times: int) -> Row:
    """A program that ends at once, as VMMs are started, until its end is known."""
    paths = VmPaths(scratch / "isolated", scratch / "isolated-runtime")
    paths.state.mkdir()

    async def started(*, isolated: bool) -> float:
        cage = await Cage(Tools(scratch)).around(_PROGRAM, paths, View(reads=(scratch,))) if isolated else ()
        began = time.perf_counter()
        if isolated:
            process = await spawn_caged(cage, [_PROGRAM], stderr=paths.vmm_log)
        else:
            process = Process.spawn([_PROGRAM], directory=paths.state, stderr=paths.vmm_log)
        await process.wait()
        process.close()
        return time.perf_counter() - began

    ours, floor = alternately(times, lambda: run(started(isolated=True)), lambda: run(started(isolated=False)))
    return difference_row("a program in namespaces", ours, "the same without", floor, 0.01)


async def prepared_guests(root: Path, scratch: Path) -> Guests:
    """Over what a server has prepared there."""
    async with SqliteStore(root / "state/ingle/ingle.db") as store:
        kernel, image = await store.kernels.get("debian"), await store.images.get("debian:bookworm")
    return Guests(scratch, root, kernel, image, MEMORY)


if __name__ == "__main__":
    main()
