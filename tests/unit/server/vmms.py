"""VMMs, engines and files that do what a test tells them to, in place of QEMU's."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from ingle.api_server.adapters.files import LocalVmFiles
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.library import DirectoryLibrary
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.model.vm import Acceleration, Image, Kernel, Running, Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.recover import Recovery
from ingle.api_server.operations.runner import Operations
from ingle.api_server.ports.disk import DiskBackend, DiskChanges
from ingle.api_server.ports.engine import VmmUsage, VmPaths
from ingle.api_server.ports.network import Link
from ingle.api_server.steps.release import Release

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VM = Vm(
    id="0123456789ab",
    name="demo",
    state=VmState.CREATING,
    image_id="ab" * 32,
    image_name="debian:bookworm",
    kernel_id="cd" * 32,
    kernel_name="debian",
    engine="scripted",
    acceleration=Acceleration.TCG,
    disk_backend="scripted",
    vcpus=1,
    memory_bytes=2**29,
    disk_bytes=2**30,
    created_at=NOW,
)

IMAGE = Image(VM.image_id, (), 2**20, NOW, "a test")
KERNEL = Kernel(VM.kernel_id, (), "6.1", 2**20, (), NOW, "a test")


class ScriptedVmm:
    """Lives until `gone` is set, or, when it `obeys`, until the first signal. Its agent never answers."""

    pid = 4242
    start_time = 99
    agent = AgentEndpoint(UnixAddress("/nonexistent/agent.sock"))
    failure = ""
    stalled = False
    restarts = False
    obeys = False

    def __init__(self) -> None:
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

    async def ready(self) -> None:
        """At once."""

    async def pause(self) -> None:
        """It does nothing anyway."""

    async def resume(self) -> None:
        """And goes on with it."""

    def bound_logs(self) -> None:
        """It says nothing."""

    def usage(self) -> VmmUsage:
        return VmmUsage(0.0, 0)


class Wires:
    """A HostNetwork that remembers who is connected: by slot, the VM as it was told."""

    def __init__(self) -> None:
        self.connected: dict[int, Vm] = {}
        self.dns: dict[int, int] = {}
        self.failure: IngleError | None = None

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

    async def reconcile(self, vms: Collection[Vm]) -> None:
        self._may_fail()
        self.connected = {vm.slot: vm for vm in vms if vm.slot is not None}

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class Shelf:
    """A disk backend that remembers whose disks are attached."""

    name = "scripted"

    def __init__(self) -> None:
        self.attached: set[str] = set()
        self.failure: IngleError | None = None
        self.changed: DiskChanges | None = None

    def disk_path(self, directory: Path) -> Path:
        return directory / "disk"

    async def usable(self, images: Path, vms: Path) -> str:
        return "" if self.failure is None else self.failure.message

    async def create(self, image: Path, directory: Path, size_bytes: int) -> None:
        self.disk_path(directory).touch()

    async def grow(self, directory: Path, size_bytes: int) -> None:
        self._may_fail()

    async def attach(self, vm: Vm, directory: Path) -> Path:
        self.attached.add(vm.id)  # what fails may have done half of it
        self._may_fail()
        return self.disk_path(directory)

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
    vmm: ScriptedVmm
    network: Wires
    shelf: Shelf
    release: Release
    names: Names

    @property
    def paths(self) -> VmPaths:
        return self.files.paths(VM.id)

    @property
    def backends(self) -> dict[str, DiskBackend]:
        return {self.shelf.name: self.shelf}

    async def state(self) -> VmState:
        return (await self.store.vm(VM.id)).state


@asynccontextmanager
async def world(root: Path, state: VmState) -> AsyncIterator[World]:
    """The VM in STOPPED, RUNNING or STOPPING, with a live VMM in the latter two."""
    async with SqliteStore(root / "ingle.db") as store:
        await store.add_image(IMAGE, "debian:bookworm")
        await store.add_kernel(KERNEL, "debian")
        await store.insert_vm(VM, bytes(32))
        files = LocalVmFiles(root / "vms", root / "run")
        for directory in ("vms", "run"):
            (root / directory).mkdir()
        files.create_state(files.paths(VM.id))
        network = Wires()
        shelf = Shelf()
        release = Release(files, network, {shelf.name: shelf})
        fleet = Fleet(store, files, Dialler(), release)
        vmm = ScriptedVmm()
        if state is VmState.STOPPED:
            await store.move_vm(VM.id, VmState.STOPPED)
        else:
            await store.move_vm(VM.id, VmState.STARTING)
            running = Running(vmm.pid, vmm.start_time, Acceleration.TCG, NOW)
            vm = await store.move_vm(VM.id, VmState.RUNNING, running=running)
            fleet.attach(vm, vmm)
        if state is VmState.STOPPING:
            await store.move_vm(VM.id, state)
        operations = Operations(store)
        try:
            yield World(store, files, operations, fleet, vmm, network, shelf, release, Names())
        finally:
            await operations.close()
            await fleet.close()


def recovery(at: World, root: Path, engine: object, *steps: object) -> Recovery:
    """What a server that starts in this world does first."""
    library = DirectoryLibrary(root / "library", Tools(root))
    return Recovery(
        store=at.store,
        fleet=at.fleet,
        files=at.files,
        engine=cast("Any", engine),
        network=at.network,
        names=at.names,
        backends=at.backends,
        release=at.release,
        images=library,
        kernels=library,
        steps=cast("Any", steps),
    )
