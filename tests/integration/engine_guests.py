"""Guests of an engine itself, with no server around it: what is saved, shared and gone on from."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ingle.api_server.adapters.boot import Initramfs
from ingle.api_server.adapters.disk import CopyDisk, Qcow2Disk
from ingle.api_server.adapters.firecracker import FirecrackerEngine
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.qemu import QemuEngine
from ingle.api_server.host import files
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import GuestError
from ingle.api_server.model.guest import ExecSpec, Exited, Stdout
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.vm import Acceleration, Image, Kernel, LiveVmm, Vm, VmSettings, VmState
from ingle.api_server.ports.disk import BootMedia, Disk, DiskBackend, DiskFormat
from ingle.api_server.ports.engine import Engine, LaunchPlan, Vmm, VmPaths
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.ports.network import Link
from ingle.api_server.ports.sources import Library
from ingle.api_server.programs import agent_binary

TOKEN = bytes(range(32))

SAYS = """rm -f /run/beat; until test -e /run/beat; do sleep 0.2; done; kill -0 $(cat /run/pid)
cat /run/marker /root/marker"""
"""Whether a process that was begun goes on, and what memory and disk hold."""
SAID = "of the saved guest\non its disk\n"
_BEGIN = """echo of the saved guest >/run/marker; echo on its disk >/root/marker; sync
(while echo alive >/run/beat; do sleep 0.3; done) >/dev/null 2>&1 & echo $! >/run/pid"""

_DISK_BYTES = 2**31
_ANSWER_SECONDS = 60.0


@dataclass
class Guest:
    """One that runs, and a way to ask it."""

    vmm: Vmm
    plan: LaunchPlan
    dialler: Dialler

    @property
    def channel(self) -> GuestChannel:
        """To its agent."""
        return self.dialler.channel(self.vmm.agent)

    def leave(self) -> None:
        """Hang up, for somebody else to call."""
        self.dialler.close()

    async def run(self, script: str) -> str:
        """What a shell there says. It succeeds."""
        out, code = b"", None
        async with self.channel.exec(ExecSpec(argv=("sh", "-c", script))) as command:
            async for event in command.events():
                if isinstance(event, Stdout):
                    out += event.data
                elif isinstance(event, Exited):
                    code = event.exit_code
        assert code == 0, f"{script}: {out!r}"
        return out.decode()

    async def begin(self) -> None:
        """Be in the middle of something: see SAYS."""
        await self.run(_BEGIN)

    async def until_answers(self) -> None:
        """As a start waits for it."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            while True:
                await self.vmm.ready()
                try:
                    await self.channel.ping(5.0)
                except GuestError:
                    continue
                return


@dataclass(frozen=True)
class EngineKind:
    """What a test takes from it, and what its guests have with it."""

    engine: Callable[[Tools, Library, BootMedia, Path], Engine]
    disk: Callable[[Tools], DiskBackend]
    acceleration: Acceleration
    saved: frozenset[str]
    """Files of a memory beside its seal."""
    shared: frozenset[str]
    """The same of one that is for many."""
    of_another_machine: str
    """In why the memory of one with less RAM is refused."""


QEMU = EngineKind(
    QemuEngine,
    Qcow2Disk,
    Acceleration.TCG,
    saved=frozenset({"stream"}),
    shared=frozenset({"ram", "state"}),
    of_another_machine="microvm.ram",
)
FIRECRACKER = EngineKind(
    partial(FirecrackerEngine, "firecracker"),
    lambda _: CopyDisk(),
    Acceleration.KVM,
    saved=frozenset({"ram", "vmstate"}),
    shared=frozenset({"ram", "vmstate"}),
    of_another_machine="of another machine",
)


class Guests:
    """Made below `root` of a kernel and an image that a server has prepared."""

    def __init__(
        self,
        root: Path,
        prepared: Path,
        kernel: Kernel,
        image: Image,
        memory_bytes: int = 2**28,
        kind: EngineKind = QEMU,
    ) -> None:
        state = prepared / "state" / "ingle"
        self.root = root
        self.kernel = kernel
        self.kind = kind
        self._image = state / "images" / image.id / "rootfs.ext4"
        self._memory_bytes = memory_bytes
        tools = Tools(root)
        self._kernels = DirectoryLibrary(state / "kernels", tools)
        self._media = Initramfs(self._kernels, agent_binary(), root / "cache")
        self._disk = kind.disk(tools)
        self.engine = kind.engine(tools, self._kernels, self._media, root / "cache")
        self._made = 0

    async def plan(
        self, *, memory: Path | None = None, disk: Path | None = None, vcpus: int = 1, link: Link | None = None
    ) -> LaunchPlan:
        """Of another VM; its disk is over `disk`, or over the image."""
        self._made += 1
        directory = self.root / f"vm-{self._made}"
        directory.mkdir(mode=0o700)
        settings = VmSettings(
            image_id="",
            image_name="",
            kernel_id=self.kernel.id,
            kernel_name="",
            engine=self.engine.info.name,
            acceleration=self.kind.acceleration,
            disk_backend=self._disk.name,
            vcpus=vcpus,
            memory_bytes=self._memory_bytes,
            disk_bytes=_DISK_BYTES,
        )
        vm = Vm(f"{self._made:012x}", f"vm-{self._made}", datetime.now(UTC), settings, VmState.STARTING)
        paths = VmPaths(state=directory, runtime=directory)
        base = Disk(self._image, DiskFormat.RAW) if disk is None else Disk(disk, self._disk.format)
        await self._disk.create(base, directory, _DISK_BYTES)
        own = Disk(self._disk.disk_path(directory), self._disk.format)
        kernel = self._kernels.path(self.kernel.id)
        modules = kernel / "modules.squashfs" if self.kernel.disk_modules else None
        plan = LaunchPlan(vm, paths, kernel / "vmlinux", own, self.kind.acceleration, TOKEN, link, memory, modules)
        if memory is None:
            await self._media.write(self.kernel, self.engine.boot_config(vm, TOKEN, link), paths.initramfs)
        return plan

    @asynccontextmanager
    async def running(self, plan: LaunchPlan) -> AsyncIterator[Guest]:
        """From its first answer on."""
        async with self.launched(plan) as guest:
            await guest.vmm.boot()
            await guest.until_answers()
            yield guest

    @asynccontextmanager
    async def adopted(self, plan: LaunchPlan, live: LiveVmm) -> AsyncIterator[Guest]:
        """As by another server. It lives on."""
        vmm = await self.engine.adopt(plan.vm, plan.paths, live, TOKEN)
        assert vmm is not None
        dialler = Dialler()
        try:
            yield Guest(vmm, plan, dialler)
        finally:
            dialler.close()

    @asynccontextmanager
    async def launched(self, plan: LaunchPlan) -> AsyncIterator[Guest]:
        """Standing still."""
        vmm = await self.engine.launch(plan)
        dialler = Dialler()
        try:
            yield Guest(vmm, plan, dialler)
        finally:
            dialler.close()
            vmm.signal(signal.SIGKILL)
            await vmm.wait_gone()
            await vmm.close()


@dataclass(frozen=True)
class Saved:
    """A memory, and the disk as it was then."""

    memory: Path
    disk: Path


async def saved(guest: Guest, to: Path) -> Saved:
    """Of a guest that stands still."""
    memory = to / "memory"
    memory.mkdir(mode=0o700, parents=True)
    await guest.vmm.save(memory)
    disk = to / "disk"
    await asyncio.to_thread(files.copy_sparse, guest.plan.root_disk.path, disk)
    return Saved(memory, disk)


async def saved_of(guests: Guests) -> Saved:
    """Of one in the middle of something, which is gone by then."""
    async with guests.running(await guests.plan()) as guest:
        await guest.begin()
        await guest.vmm.pause()
        return await saved(guest, guests.root / "kept")


def publishing(plan: LaunchPlan, port: PublishedPort) -> LaunchPlan:
    """The same with a port of the host."""
    return replace(plan, vm=replace(plan.vm, settings=replace(plan.vm.settings, ports=(port,))))


def shared_bytes(pid: int, file: Path) -> int:
    """What a process has mapped of a file and not changed for itself. See proc(5), smaps."""
    mappings = re.split(r"^(?=[0-9a-f]+-)", Path(f"/proc/{pid}/smaps").read_text(), flags=re.MULTILINE)
    (mapped,) = (mapping for mapping in mappings if f" {file}\n" in mapping)
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB", mapped, re.MULTILINE))
    return (int(sizes["Rss"]) - int(sizes["Anonymous"])) * 1024


def processes_in(directory: Path) -> list[int]:
    """Whose working directory that is."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if Path(entry.path, "cwd").readlink() == directory:
                    found.append(int(entry.name))
            except OSError:  # it ended, or is none of ours
                continue
    return found
