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
from ingle.api_server.application import Application
from ingle.api_server.config import Config
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Acceleration, Running, Vm, VmState
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.inspect_vm import InspectVm
from ingle.api_server.operations.runner import Operations, Progress
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.rpc.guest import GuestServicer
from ingle.api_server.rpc.standard import Health, add_health
from ingle.api_server.rpc.vm import VmServicer
from ingle.api_server.steps import wait_for_agent
from ingle.api_server.steps.configure_guest import ConfigureGuest
from ingle.api_server.steps.release import Release
from ingle.api_server.steps.target import Start
from ingle.api_server.steps.wait_for_agent import WaitForAgent
from ingle.v1 import guest_pb2_grpc, vm_pb2_grpc
from unit.server.vmms import IMAGE, KERNEL, NOW, VM, ScriptedVmm, World, world

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

    async def vm(self, reference: str) -> Vm:
        name = self._names.get(reference, reference)
        vm_id = hashlib.sha256(name.encode()).hexdigest()[:12]
        self._names[vm_id] = name
        vm = dataclasses.replace(VM, id=vm_id, name=name, state=VmState.RUNNING)
        if self.fleet.vmm(vm_id) is None:
            vmm = Vmm()
            vmm.agent = AgentEndpoint(UnixAddress(str(self._agents / name)))
            self.fleet._vmms[vm_id] = cast("Any", vmm)
        return vm

    async def find_vm(self, reference: str) -> Vm:
        return await self.vm(reference)

    async def move_vm(self, vm_id: str, state: VmState, **fields: object) -> Vm:
        return dataclasses.replace(await self.vm(vm_id), state=state)


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
        self._steps = (WaitForAgent(dialler, world.files), ConfigureGuest(dialler))
        self._paths = world.paths

    async def start(self, op_id: str, reference: str) -> Any:
        vm = await self._guests.vm(reference)
        return await self._operations.begin(
            op_id, OperationKind.START_VM, lambda progress: self.start_now(vm.id, progress), vm.id
        )

    async def start_now(self, vm_id: str, progress: Progress) -> Vm:
        vm = await self._guests.vm(vm_id)
        target = Start(
            op_id=progress.operation.id, vm_id=vm.id, paths=self._paths, vm=vm, image=IMAGE, kernel=KERNEL, token=b""
        )
        target.vmm = self._guests.fleet.vmm(vm.id)
        for step in self._steps:
            await step.run(target)
        return dataclasses.replace(vm, running=Running(1, 1, Acceleration.TCG, NOW))


class Nothing:
    """What recovers and owns nothing."""

    async def run(self) -> None:
        """There is nothing from before."""

    take_up = close = run


@asynccontextmanager
async def application(config: Config, stop: Callable[[], None]) -> AsyncIterator[Application]:
    """As the real one has it, but for store, VMMs, and what never asks a guest."""
    root = config.paths.state / "world"
    root.mkdir()
    async with world(root, VmState.STOPPED) as at:
        dialler, guests, nothing = Dialler(PATIENCE), Guests(Path(sys.argv[1])), cast("Any", Nothing())
        store = cast("Any", guests)
        release = Release(at.files, at.network, at.backends)
        guests.fleet = fleet = Fleet(store, at.files, dialler, release)
        start = cast("Any", Starting(at.operations, guests, at, dialler))
        stopping = StopVm(at.operations, store, fleet, release, dialler, start)
        inspect = InspectVm(store, fleet, at.files, at.backends)
        vms = VmServicer(store, start, stopping, nothing, nothing, inspect, nothing)

        def register(to: grpc.aio.Server) -> Health:
            vm_pb2_grpc.add_VmServiceServicer_to_server(vms, to)
            guest = GuestServicer(store, fleet, cast("DeleteVm", nothing))
            guest_pb2_grpc.add_GuestServiceServicer_to_server(guest, to)
            return add_health((), to)

        async with asyncio.TaskGroup() as tasks:
            watch = Watch(guests)
            watching = tasks.create_task(watch.run())
            yield Application(at.operations, fleet, nothing, nothing, register)
            await fleet.close()
            watching.cancel()
        log.info("the event loop", extra={"held_seconds": watch.held_seconds})


if __name__ == "__main__":
    vars(server)["application"] = application
    vars(wait_for_agent)["_BOOT_SECONDS"] = 1.0
    vars(wait_for_agent)["_PING_SECONDS"] = 0.3
    sys.exit(main.main(sys.argv[2:]))
