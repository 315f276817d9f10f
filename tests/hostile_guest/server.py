"""The server, from its lock to its last goodbye, whose every VM is a hostile agent: the one whose name it has.

python -m hostile_guest.server AGENTS serve
"""

import asyncio
import dataclasses
import hashlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc

from ingle.api_server import main, server
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.guest.patience import Patience
from ingle.api_server.adapters.memories import LocalMemories
from ingle.api_server.application import Application
from ingle.api_server.config import Config
from ingle.api_server.model.caller import ROOT, Reference
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.snapshot import Snapshot
from ingle.api_server.model.vm import Acceleration, LiveVmm, Vm, VmState
from ingle.api_server.operations.between_boots import BetweenBoots
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.inspect_vm import InspectVm
from ingle.api_server.operations.runner import Operations, Progress
from ingle.api_server.operations.snapshots import SnapshotWish
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.operations.watch_health import WatchHealth
from ingle.api_server.plugged import MakeEngines
from ingle.api_server.ports.store.journal import JournalEntry
from ingle.api_server.rpc.guest import GuestServicer
from ingle.api_server.rpc.snapshot import SnapshotServicer
from ingle.api_server.rpc.standard import Health, add_health
from ingle.api_server.rpc.vm import VmServicer
from ingle.api_server.steps import target, wait_for_agent
from ingle.api_server.steps.identify import Identify
from ingle.api_server.steps.release import Release
from ingle.api_server.steps.rest import Rest
from ingle.api_server.steps.resume import Resume
from ingle.api_server.steps.save_guest import SaveGuest
from ingle.api_server.steps.snapshot_target import Making
from ingle.api_server.steps.target import Sleep, Start
from ingle.api_server.steps.wait_for_agent import WaitForAgent
from ingle.v1 import guest_pb2_grpc, snapshot_pb2_grpc, vm_pb2_grpc
from unit.api_server.vmms import IMAGE, KERNEL, NOW, VM, ScriptedVmm, World, world

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.005

PATIENCE = Patience(start_seconds=0.5, frame_seconds=0.5, answer_seconds=1, work_seconds=1)
HONEST = "honest"
"""A name that no agent has: its VM is never asked anything."""


class Vmm(ScriptedVmm):
    """Of a guest that nobody has to wait for."""

    obeys = True

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        return self.gone.is_set() if timeout_seconds is not None else await self.gone.wait()


class Guests:
    """Store and VMMs in one: whoever is named runs, and whoever was stopped runs again when named again."""

    def __init__(self, agents: Path) -> None:
        self._agents = agents
        self._names: dict[str, str] = {}
        self.fleet: Fleet

    @property
    def asked(self) -> bool:
        """Whether anybody was named yet."""
        return bool(self._names)

    async def get(self, reference: str) -> Vm:
        name = self._names.get(reference, reference)
        vm_id = hashlib.sha256(name.encode()).hexdigest()[:12]
        self._names[vm_id] = name
        vm = dataclasses.replace(VM, id=vm_id, name=name, state=VmState.RUNNING)
        if self.fleet.vmm(vm_id) is None:
            vmm = Vmm()
            vmm.agent = AgentEndpoint(UnixAddress(str(self._agents / name)))
            self.fleet._vmms[vm_id] = cast("Any", vmm)
        return vm

    async def exact(self, reference: Reference) -> Vm:
        return await self.get(reference.text)

    find = exact

    async def move(self, vm_id: str, state: VmState, **fields: object) -> Vm:
        return dataclasses.replace(await self.get(vm_id), state=state)

    async def intend(self, entry: JournalEntry) -> None:
        """Nobody will undo it."""

    forget = intend

    async def note_sleep_error(self, vm_id: str, error: str, op_id: str = "") -> None:
        """Nobody looks."""


class Watch:
    """How long the event loop was held at once, in seconds of processor time, since somebody asked for a guest."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests
        self.held_seconds = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(_LOOK_SECONDS)
            if self._guests.asked:
                self.held_seconds = max(self.held_seconds, time.thread_time() - before - _LOOK_SECONDS)


class Starting:
    """The part of a start that asks the guest."""

    def __init__(self, operations: Operations, guests: Guests, world: World, dialler: Dialler) -> None:
        self._operations = operations
        self._guests = guests
        self._steps = (WaitForAgent(dialler, world.files), Identify(dialler, world.clock, {}))
        self._paths = world.paths

    async def start(self, op_id: str, reference: Reference) -> Any:
        vm = await self._guests.exact(reference)
        return await self._operations.begin(
            op_id, ROOT, OperationKind.START_VM, lambda progress: self.start_now(vm.id, progress), vm.id
        )

    async def check_again(self, vm: Vm) -> None:
        """It could be started."""

    async def start_now(self, vm_id: str, progress: Progress) -> Vm:
        vm = await self._guests.get(vm_id)
        target = Start(
            op_id=progress.operation.id, vm_id=vm.id, paths=self._paths, vm=vm, image=IMAGE, kernel=KERNEL, token=b""
        )
        target.vmm = self._guests.fleet.vmm(vm.id)
        for step in self._steps:
            await step.run(target)
        return dataclasses.replace(vm, vmm=LiveVmm(1, 1, Acceleration.TCG, NOW))


class Sleeping:
    """The parts of falling asleep and waking that ask the guest."""

    def __init__(self, operations: Operations, guests: Guests, world: World, dialler: Dialler) -> None:
        self._operations = operations
        self._guests = guests
        store = cast("Any", guests)
        self._rest, self._resume = Rest(store, dialler), Resume(store, world.network, dialler, world.clock)
        self._paths = world.paths

    async def hibernate(self, op_id: str, reference: Reference) -> Any:
        return await self._begin(op_id, OperationKind.HIBERNATE_VM, reference, self._rest)

    async def resume(self, op_id: str, reference: Reference) -> Any:
        return await self._begin(op_id, OperationKind.RESUME_VM, reference, self._resume)

    async def _begin(self, op_id: str, kind: OperationKind, reference: Reference, step: Rest | Resume) -> Any:
        vm = await self._guests.exact(reference)

        async def work(progress: Progress) -> Vm:
            vmm = self._guests.fleet.live_vmm(vm)
            await step.run(Sleep(op_id, vm.id, self._paths, vm, vmm))
            return vm

        return await self._operations.begin(op_id, ROOT, kind, work, vm.id)


class Keeping:
    """The part of making a snapshot that asks the guest; its disk is nothing."""

    def __init__(self, operations: Operations, guests: Guests, world: World, dialler: Dialler) -> None:
        self._operations = operations
        self._guests = guests
        nothing, store = cast("Any", Nowhere()), cast("Any", guests)
        self._directory = world.paths.state
        use = UseGuest(store, guests.fleet, dialler)
        self._save = SaveGuest(
            store,
            nothing,
            guests.fleet,
            dialler,
            world.files,
            nothing,
            {},
            {VM.settings.disk_backend: nothing},
            nothing,
            world.clock,
            use.closed,
        )

    async def create(self, op_id: str, reference: Reference, wish: SnapshotWish) -> Any:
        vm = await self._guests.exact(reference)
        snapshot = Snapshot(op_id, "", ROOT, NOW, vm.id, vm.name, vm.settings, memory=False)

        async def work(progress: Progress) -> Snapshot:
            making = Making(op_id, snapshot.id, snapshot, vm, KERNEL, new_directory=self._directory)
            await self._save.run(making)
            return snapshot

        return await self._operations.begin(op_id, ROOT, OperationKind.CREATE_SNAPSHOT, work, snapshot.id)


class Nowhere:
    """Where images and disks would be."""

    def path(self, item_id: str) -> Path:
        return Path(item_id)

    def disk_path(self, directory: Path) -> Path:
        return directory

    async def duplicate(self, disk: Path, image: Path, directory: Path) -> None:
        """There is nothing to it."""


class Nothing:
    """What recovers and owns nothing."""

    async def run(self) -> None:
        """There is nothing from before."""

    take_up = close = keep = run


@asynccontextmanager
async def application(config: Config, stop: Callable[[], None], _: MakeEngines) -> AsyncIterator[Application]:
    """As the real one has it, but for store, VMMs, and what never asks a guest."""
    root = config.paths.state / "world"
    root.mkdir()
    async with world(root, VmState.STOPPED) as at:
        dialler, guests, nothing = Dialler(PATIENCE), Guests(Path(sys.argv[1])), cast("Any", Nothing())
        store = cast("Any", guests)
        release = Release(at.files, at.network, at.backends)
        guests.fleet = fleet = Fleet(store, store, at.files, release)
        use = UseGuest(store, fleet, dialler)
        start = cast("Any", Starting(at.operations, guests, at, dialler))
        stopping = StopVm(at.operations, store, fleet, release, dialler, at.files, LocalMemories())
        restarting = BetweenBoots(at.operations, store, fleet, stopping, start)
        inspect = InspectVm(store, fleet, use, at.files, at.backends, at.clock)
        sleeping = cast("Any", Sleeping(at.operations, guests, at, dialler))
        nothings = (nothing, nothing, nothing, nothing)
        health = WatchHealth(store, use, nothing, at.clock)
        doing = (start, stopping, restarting, sleeping, sleeping)
        vms = VmServicer(store, *doing, *nothings[:2], inspect, health, *nothings)

        def register(to: grpc.aio.Server) -> Health:
            vm_pb2_grpc.add_VmServiceServicer_to_server(vms, to)
            keeping = SnapshotServicer(nothing, cast("Any", Keeping(at.operations, guests, at, dialler)), nothing)
            snapshot_pb2_grpc.add_SnapshotServiceServicer_to_server(keeping, to)
            guest = GuestServicer(use, cast("DeleteVm", nothing))
            guest_pb2_grpc.add_GuestServiceServicer_to_server(guest, to)
            return add_health((), to)

        async with asyncio.TaskGroup() as tasks:
            watch = Watch(guests)
            watching = tasks.create_task(watch.run())
            yield Application(at.operations, fleet, *nothings, nothing, nothing, register)
            await fleet.close()
            watching.cancel()
        log.info("the event loop", extra={"held_seconds": watch.held_seconds})


if __name__ == "__main__":
    vars(server)["application"] = application
    vars(target)["_BOOT_SECONDS"] = 1.0
    vars(wait_for_agent)["_PING_SECONDS"] = 0.3
    sys.exit(main.main(sys.argv[2:]))
