"""What it takes to keep all of a guest's memory, what an earlier snapshot has not, and to go on from a chain of those.

With the files of snapshots themselves and no server around them; disks are left out."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench.measure import Figure
from bench.raw_memory import RawQemu
from ingle.api_server.adapters.snapshot_files import LocalSnapshotFiles
from ingle.api_server.model.snapshot import MOST_DEPTH, Snapshot
from integration.engine_guests import Guest, Guests

MIB = 2**20
DIRTIED = (8, 64, 192)


class Kept(NamedTuple):
    """A snapshot, how long its guest stood still, and how long all of it took."""

    snapshot: Snapshot
    still: float
    took: float


class SnapshotBench:
    """Of one guest."""

    def __init__(self, runner: asyncio.Runner, guests: Guests, guest: Guest) -> None:
        self._run = runner.run
        self._guests = guests
        self._guest = guest
        self._root = guests.root / "snapshots"
        self._root.mkdir()
        self._files = LocalSnapshotFiles(self._root)
        self._made = 0

    def figures(self) -> Iterator[Figure]:
        """Full ones and diffs by what was dirtied, then a start of the deepest."""
        chain = [self._keep(()).snapshot]
        yield Figure("snapshot of a guest that has booted, on the disk", chain[0].size_bytes / MIB, "MiB")
        for dirtied in DIRTIED:
            self._dirty(dirtied)
            diff = self._keep(chain)
            full = self._keep(())
            raw = self._raw_save(full.snapshot)
            chain.insert(0, diff.snapshot)
            what = f"{dirtied} MiB dirtied"
            for name, kept in (("full", full), ("diff", diff)):
                yield Figure(f"{name} snapshot, {what}", kept.took / raw, "x raw save")
                yield Figure(f"{name} snapshot, {what}, stood still", kept.still / raw, "x raw save")
                yield Figure(f"{name} snapshot, {what}, on the disk", kept.snapshot.size_bytes / MIB, "MiB")
            self._run(self._files.remove(full.snapshot.id))
        while len(chain) <= MOST_DEPTH:
            self._dirty(2)
            chain.insert(0, self._keep(chain).snapshot)
        yield from self._starts(chain)

    def _starts(self, chain: Sequence[Snapshot]) -> Iterator[Figure]:
        for depth in (0, 1, MOST_DEPTH):
            files = LocalSnapshotFiles(self._root)
            part = chain[len(chain) - 1 - depth :]
            began = time.perf_counter()
            self._run(files.verify(part))
            verified = time.perf_counter()
            self._run(files.whole(part))
            whole = time.perf_counter()
            self._run(files.whole(part))
            again = time.perf_counter()
            what = f"from a depth of {depth}"
            yield Figure(f"to verify, {what}", (verified - began) * 1000, "ms")
            yield Figure(f"to put together, {what}, the first time", (whole - verified) * 1000, "ms")
            yield Figure(f"to put together, {what}, then", (again - whole) * 1000, "ms")
            self._run(self._files.forget_whole(part[0].id))

    def _dirty(self, mib: int) -> None:
        letter = chr(ord("a") + self._made % 26)
        self._run(self._guest.run(f"head -c {mib * MIB} /dev/zero | tr '\\0' {letter} >/dev/shm/dirty"))

    def _keep(self, above: Sequence[Snapshot]) -> Kept:
        vm = self._guest.plan.vm
        snapshot = Snapshot(f"{self._made:012x}", "", 0, vm.created_at, vm.id, vm.name, vm.settings, memory=True)
        self._made += 1
        files, vmm = self._files, self._guest.vmm
        memory = files.memory(self._run(files.begin(snapshot)))
        self._run(vmm.pause())
        began = time.perf_counter()
        self._run(vmm.save(memory))
        still = time.perf_counter() - began
        self._run(vmm.resume())
        began = time.perf_counter()
        self._run(self._guests.engine.share(self._run(self._guests.plan()).vm, memory))
        if above:
            self._run(files.thin(snapshot, above, disk=False))
            if self._run(files.settle_thin(snapshot, at_any_price=True)):
                snapshot = replace(snapshot, parent_id=above[0].id)
        sealed = self._run(files.publish(snapshot))
        took = still + time.perf_counter() - began
        return Kept(replace(snapshot, size_bytes=sealed.size_bytes, digest=sealed.digest), still, took)

    def _raw_save(self, snapshot: Snapshot) -> float:
        """Of the same guest, by hand."""
        memory = self._files.memory(self._files.path(snapshot.id))
        raw = RawQemu(self._run(self._guests.plan(memory=memory)), memory / "ram")
        path = Path(self._guests.root / "raw")
        try:
            raw.go_on()
            raw.stop()
            began = time.perf_counter()
            raw.save(path)
            return time.perf_counter() - began
        finally:
            raw.close()
            path.unlink()
