"""VMMs, engines and files that do what a test tells them to, in place of QEMU's."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ingle.api_server.adapters.disk_survey import HostDiskSurvey
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.memories import LocalMemories
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.adapters.vm_files import LocalVmFiles
from ingle.api_server.model.caller import ROOT, Caller, Reference
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.model.rates import DiskRates
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.model.spec import Defaults, HostLimits
from ingle.api_server.model.vm import Acceleration, Image, Kernel, LiveVmm, Vm, VmSettings, VmState
from ingle.api_server.operations.between_boots import BetweenBoots
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Operations
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.operations.update_vm import UpdateVm
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.ports.activation import Waken, nobody
from ingle.api_server.ports.disk import Disk, DiskBackend, DiskChanges, DiskFormat
from ingle.api_server.ports.engine import VmmUsage, VmPaths
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.network import Link
from ingle.api_server.steps.release import Release

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VM = Vm(
    id="0123456789ab",
    name="demo",
    created_at=NOW,
    settings=VmSettings(
        *("ab" * 32, "debian:bookworm", "cd" * 32, "debian"),
        engine="scripted",
        acceleration=Acceleration.TCG,
        disk_backend="scripted",
        vcpus=1,
        memory_bytes=2**29,
        disk_bytes=2**30,
    ),
    state=VmState.CREATING,
)

THE_VM = Resource(ResourceKind.VM, VM.id)
ME = Caller(ROOT, admin=True)
IMAGE = Image(VM.settings.image_id, (), 2**20, NOW, "a test")
KERNEL = Kernel(VM.settings.kernel_id, (), "6.1", 2**20, (), NOW, "a test")


def mine(text: str) -> Reference:
    """What it means when I say it."""
    return Reference(ME, text)


class StillClock:
    """Shows the time that a test has made it, from NOW on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.booted = NOW - timedelta(days=1)

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def unix_nanoseconds(self) -> int:
        return int(self.now().timestamp()) * 10**9

    def booted_at(self) -> datetime:
        return self.booted

    def monotonic(self) -> float:
        return self.seconds


class ScriptedVmm:
    """Lives until `gone` is set, or, when it `obeys`, until the first signal. Its agent never answers."""

    pid = 4242
    start_time = 99
    agent = AgentEndpoint(UnixAddress("/nonexistent/agent.sock"))
    failure = ""
    stalled = restarts = False
    obeys = False

    def __init__(self) -> None:
        self.moves = True
        self.open_connections = 0
        self.cpu_seconds = 0.0
        self.disk_rates = DiskRates()
        self.signals: list[int] = []
        self.signalled = asyncio.Event()
        self.gone = asyncio.Event()
        self.closed_alive: bool | None = None

    def signal(self, signal: int) -> None:
        self.signals.append(signal)
        self.signalled.set()
        if self.obeys:
            self.gone.set()

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        await self.gone.wait()
        return True

    async def close(self) -> None:
        self.closed_alive = not self.gone.is_set()

    async def boot(self) -> None:
        """It runs already."""

    ready = disk_traffic = boot

    async def connections(self) -> int:
        return self.open_connections

    async def publish(self, port: Any) -> None:
        """It has it."""

    def published(self, ports: Any) -> Mapping[Any, int]:
        return {}

    async def knocked(self) -> bool:
        return False

    async def pause(self) -> None:
        self.moves = False

    async def resume(self) -> None:
        self.moves = True

    async def limit_disk(self, rates: DiskRates) -> None:
        self.disk_rates = rates

    async def save(self, directory: Path) -> None:
        """There is nothing to it."""
        (directory / "memory").touch()

    def give_way(self) -> None:
        """It takes nothing."""

    def note_logs(self) -> None:
        """It says nothing."""

    def bound_logs(self) -> None:
        """Nor is there much of it."""

    def usage(self) -> VmmUsage:
        return VmmUsage(self.cpu_seconds, 0)


class Wires:
    """A HostNetwork that remembers who is connected: by slot, the VM as it was told."""

    def __init__(self) -> None:
        self.connected: dict[int, Vm] = {}
        self.dns: dict[int, int] = {}
        self.nowhere: set[str] = set()
        self.failure: IngleError | None = None
        self.waken: Waken = nobody

    async def problem(self) -> str:
        return "" if self.failure is None else self.failure.message

    async def connect(self, vm: Vm) -> Link:
        self._may_fail()
        assert vm.slot is not None
        self.connected[vm.slot] = vm
        addresses = (f"10.0.0.{vm.slot}", 24, "10.0.0.1", f"fd00::{vm.slot}", "fd00::1")
        return Link(f"tap{vm.slot}", "02:00:00:00:00:01", *addresses)

    async def lead_dns(self, network: int, port: int) -> None:
        self.dns[network] = port

    async def disconnect(self, slot: int, vm_id: str) -> None:
        self._may_fail()
        self.connected.pop(slot, None)

    async def connect_nowhere(self, vm_id: str) -> Link:
        self._may_fail()
        self.nowhere.add(vm_id)
        return Link(f"tap-{vm_id}", "02:00:00:00:00:02", "", 0, "")

    async def disconnect_nowhere(self, vm_id: str) -> None:
        self._may_fail()
        self.nowhere.discard(vm_id)

    async def reconcile(self, vms: Collection[Vm]) -> None:
        self._may_fail()
        self.connected = {vm.slot: vm for vm in vms if vm.slot is not None}

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class Shelf:
    """A disk backend that remembers whose disks are attached."""

    name = "scripted"
    format = DiskFormat.RAW
    copies = False
    stacks = True

    def __init__(self) -> None:
        self.attached: set[str] = set()
        self.failure: IngleError | None = None
        self.changed: DiskChanges | None = None

    def disk_path(self, directory: Path) -> Path:
        return directory / "disk"

    async def usable(self, images: Path, vms: Path) -> str:
        return "" if self.failure is None else self.failure.message

    async def create(self, base: Disk, directory: Path, size_bytes: int) -> None:
        self.disk_path(directory).touch()

    async def duplicate(self, disk: Path, image: Path, directory: Path) -> None:
        self.disk_path(directory).write_bytes(disk.read_bytes())

    async def difference(self, disk: Path, base: Path | None, image: Path, directory: Path) -> None:
        """It keeps all of each."""

    async def to_raw(self, disk: Path, target: Path) -> None:
        target.write_bytes(disk.read_bytes())

    async def from_raw(self, raw: Path, image: Path, directory: Path) -> None:
        raw.rename(self.disk_path(directory))

    async def grow(self, directory: Path, size_bytes: int) -> None:
        self._may_fail()

    async def attach(self, vm: Vm, directory: Path) -> Disk:
        self.attached.add(vm.id)  # what fails may have done half of it
        self._may_fail()
        return Disk(self.disk_path(directory), self.format)

    async def detach(self, vm_id: str) -> None:
        self._may_fail()
        self.attached.discard(vm_id)

    async def reconcile(self, vms: Collection[Vm]) -> None:
        self._may_fail()
        self.attached = {vm.id for vm in vms}

    async def changes(self, vm_id: str, directory: Path) -> DiskChanges | None:
        self._may_fail()
        return self.changed

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class Names:
    """A NameService that remembers where it serves."""

    def __init__(self) -> None:
        self.gateways: set[str] = set()
        self.waken: Waken = nobody

    async def serve(self, gateway: str) -> int:
        self.gateways.add(gateway)
        return 20053


@dataclass
class World:
    """One VM in a real store, and what operations are made of."""

    store: SqliteStore
    files: LocalVmFiles
    operations: Operations
    fleet: Fleet
    guests: UseGuest
    dialler: GuestDialler
    vmm: ScriptedVmm
    network: Wires
    shelf: Shelf
    release: Release
    names: Names
    clock: StillClock

    @property
    def paths(self) -> VmPaths:
        return self.files.paths(VM.id)

    @property
    def backends(self) -> dict[str, DiskBackend]:
        return {self.shelf.name: self.shelf}

    @property
    def room(self) -> DiskRoom:
        """As much as the host has."""
        place = self.paths.state.parent
        return DiskRoom(self.store.vms, self.files, self.backends, HostDiskSurvey(), place, Defaults)

    def updating(self, backends: Mapping[str, Any] | None = None, start: Any = None) -> UpdateVm:
        """What changes VMs, whose disks are the world's unless others are given; `start` stands for StartVm."""
        return UpdateVm(
            self.operations,
            self.store.vms,
            self.store.kernels,
            self.store.journal,
            self.fleet,
            self.guests,
            self.files,
            self.backends if backends is None else backends,
            self.network,
            HostLimits(vcpus=8, memory_bytes=2**40),
            self.room,
            self.between_boots(start),
        )

    @property
    def stopping(self) -> StopVm:
        """What stops VMs."""
        return StopVm(self.operations, self.store.vms, self.fleet, self.release, Dialler(), self.files, LocalMemories())

    def between_boots(self, start: Any) -> BetweenBoots:
        """What restarts VMs; `start` is StartVm, or stands for it."""
        return BetweenBoots(self.operations, self.store.vms, self.fleet, self.stopping, start)

    async def state(self) -> VmState:
        return (await self.store.vms.get(VM.id)).state


_WAYS: Mapping[VmState, Sequence[VmState]] = {
    VmState.CREATING: (),
    VmState.STOPPED: (VmState.STOPPED,),
    VmState.STARTING: (VmState.STARTING,),
    VmState.RUNNING: (VmState.STARTING, VmState.RUNNING),
    VmState.PAUSED: (VmState.STARTING, VmState.RUNNING, VmState.PAUSED),
    VmState.HIBERNATED: (VmState.STARTING, VmState.RUNNING, VmState.PAUSED, VmState.HIBERNATED),
    VmState.STOPPING: (VmState.STARTING, VmState.RUNNING, VmState.STOPPING),
    VmState.ERROR: (VmState.STARTING, VmState.RUNNING, VmState.ERROR),
}


@asynccontextmanager
async def world(root: Path, state: VmState) -> AsyncIterator[World]:
    """The VM in that state, with a live VMM where there is one in it."""
    for directory in ("vms", "run"):
        (root / directory).mkdir()
    async with world_again(root) as at:
        await at.store.images.add(IMAGE, "debian:bookworm", ME)
        await at.store.kernels.add(KERNEL, "debian", ME)
        await at.store.vms.insert(VM, bytes(32))
        at.files.create_state(at.paths)
        for step in _WAYS[state]:
            live = LiveVmm(at.vmm.pid, at.vmm.start_time, Acceleration.TCG, NOW) if step is VmState.RUNNING else None
            vm = await at.store.vms.move(VM.id, step, vmm=live)
            if live is not None:
                at.fleet.attach(vm, at.vmm)
        if not state.alive:
            await at.fleet.detach(VM.id)
        yield at


@asynccontextmanager
async def world_again(root: Path) -> AsyncIterator[World]:
    """As another server finds it, which has recovered nothing yet."""
    async with SqliteStore(root / "ingle.db") as store:
        files = LocalVmFiles(root / "vms", root / "run")
        network = Wires()
        shelf = Shelf()
        clock = StillClock()
        release = Release(files, network, {shelf.name: shelf})
        fleet = Fleet(store.vms, store.journal, files, release)
        operations = Operations(store.operations, clock)
        dialler = Dialler()
        guests = UseGuest(store.vms, fleet, dialler)
        try:
            yield World(
                store=store,
                files=files,
                operations=operations,
                fleet=fleet,
                guests=guests,
                dialler=dialler,
                vmm=ScriptedVmm(),
                network=network,
                shelf=shelf,
                release=release,
                names=Names(),
                clock=clock,
            )
        finally:
            await operations.close()
            await fleet.close()
