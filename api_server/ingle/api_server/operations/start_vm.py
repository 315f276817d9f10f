"""Create and start: the pipeline this product exists for."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.errors import Conflict, NotFound, Reason
from ingle.api_server.model.ids import new_op_id, new_vm_id, new_vm_name
from ingle.api_server.model.image_reference import NO_LOGINS, Login
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.quota import Use
from ingle.api_server.model.spec import CompleteSpec, VmSpec, check_memory_holds
from ingle.api_server.model.vm import BootMode, Image, Keeper, Kernel, Vm, VmState, check_move
from ingle.api_server.operations import reboots
from ingle.api_server.operations.catalog import Kernels
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.images import Images
from ingle.api_server.operations.placement import Placement
from ingle.api_server.operations.resolve import Resolve
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.wake_vm import WakeVm
from ingle.api_server.operations.warm_starts import WarmStarts
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.activation import ActivationSockets
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.disk import BootMedia, DiskBackend
from ingle.api_server.ports.engine import Engine, Vmms, engine_of
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.memories import Memories
from ingle.api_server.ports.names import NameService
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.ports.warm import WarmCache
from ingle.api_server.steps.acceleration import ChooseAcceleration
from ingle.api_server.steps.attach_disk import AttachDisk, DiskBases
from ingle.api_server.steps.boot import Boot
from ingle.api_server.steps.connect import Connect
from ingle.api_server.steps.identify import Identify
from ingle.api_server.steps.initramfs import WriteInitramfs
from ingle.api_server.steps.launch import Launch
from ingle.api_server.steps.mark_starting import MarkStarting
from ingle.api_server.steps.mark_waking import MarkWaking
from ingle.api_server.steps.publish import Publish
from ingle.api_server.steps.record_loaded import RecordLoaded
from ingle.api_server.steps.record_running import RecordRunning
from ingle.api_server.steps.record_stopped import RecordStopped
from ingle.api_server.steps.reserve import Reserve
from ingle.api_server.steps.root_disk import RootDisk
from ingle.api_server.steps.runtime_directory import RuntimeDirectory
from ingle.api_server.steps.start_warm import StartWarm
from ingle.api_server.steps.state_directory import StateDirectory
from ingle.api_server.steps.target import SavedGuest, Start
from ingle.api_server.steps.wait_for_agent import WaitForAgent

_SHOWN_ID = 12
_REBOOTED_IN_VAIN = "its guest rebooted, and it could not be started again"


@dataclass(frozen=True, slots=True)
class StartPipelines:
    """The steps, in order. A start undoes to a stopped VM, a wake to one that hibernates, a create to nothing."""

    make: Sequence[Step[Start]]
    start: Sequence[Step[Start]]
    wake: Sequence[Step[Start]]
    leave_stopped: Sequence[Step[Start]]
    go_on: Sequence[Step[Start]] = ()
    """In place of `start`, of a guest that goes on from a memory: it is told who it is before it is asked anything."""

    @staticmethod
    def of(
        vms: VmStore,
        files: VmFiles,
        engines: Mapping[str, Engine],
        placement: Placement,
        vmms: Vmms,
        media: BootMedia,
        network: HostNetwork,
        names: NameService,
        dialler: GuestDialler,
        images: Library,
        kernels: Library,
        backends: Mapping[str, DiskBackend],
        bases: DiskBases,
        clock: Clock,
        memories: Memories,
        cache: WarmCache,
        sockets: ActivationSockets,
    ) -> "StartPipelines":
        """Over these ports."""
        claim = MarkStarting(vms)
        prepare = (RuntimeDirectory(files), Connect(network, names, vms), AttachDisk(backends, vms, bases))
        launch, boot = Launch(engines, vmms, kernels), Boot(files)
        agent, identify = WaitForAgent(dialler, files), Identify(dialler, clock, engines)
        record = RecordRunning(vms, clock)
        acceleration, initramfs = ChooseAcceleration(placement.acceleration), WriteInitramfs(media, engines)
        warm = StartWarm((launch, boot, identify, agent), vmms, cache, clock)
        return StartPipelines(
            make=(Reserve(vms), StateDirectory(files), RootDisk(backends, images)),
            start=(claim, acceleration, *prepare, warm, initramfs, launch, boot, agent, identify, record),
            go_on=(claim, *prepare, launch, boot, identify, agent, record),
            wake=(MarkWaking(vms, memories), *prepare, launch, Publish(sockets), RecordLoaded(vms, clock)),
            leave_stopped=(RecordStopped(vms),),
        )

    @property
    def all(self) -> tuple[Step[Start], ...]:
        """Every step there is, for recovery to find by name."""
        return (*self.make, *self.start, *self.wake, *self.leave_stopped)


class StartVm:
    """Creates and starts VMs."""

    def __init__(
        self,
        *,
        operations: Operations,
        vms: VmStore,
        journal: Journal,
        clock: Clock,
        fleet: Fleet,
        files: VmFiles,
        engines: Mapping[str, Engine],
        resolve: Resolve,
        images: Images,
        kernels: Kernels,
        pipelines: StartPipelines,
        room: DiskRoom,
        warm_starts: WarmStarts,
        wake: WakeVm,
    ) -> None:
        self._operations = operations
        self._vms = vms
        self._journal = journal
        self._clock = clock
        self._fleet = fleet
        self._files = files
        self._engines = engines
        self._resolve = resolve
        self._images = images
        self._kernels = kernels
        self._pipelines = pipelines
        self._room = room
        self._warm_starts = warm_starts
        self._wake = wake

    async def create(
        self,
        op_id: str,
        caller: Caller,
        wish: VmSpec,
        *,
        start: bool,
        keeper: Keeper | None = None,
        logins: Mapping[str, Login] = NO_LOGINS,
    ) -> Ongoing[Vm]:
        """Begin to create a VM, the caller's; it lives for `keeper` if there is one. `logins`: who the caller is to
        registries, for an image that is not here. Everything that can be refused is refused here, before anything
        changes."""
        wanted = await self._resolve.look(wish)
        spec, place = wanted.spec, wanted.choice.best
        await self._check_name_free(Reference(caller, spec.name))
        await self._vms.check_room(caller.uid, _wanted(spec, start=start))
        vm_id = new_vm_id()
        self._engines[place.engine].check(self._files.paths(vm_id), spec.ports if start else ())
        if wanted.image is not None:
            await self._room_for(place.disk_backend, wanted.image, spec)

        async def work(progress: Progress) -> Vm:
            resolved = await self._resolve.get(wanted, progress, caller, logins)
            settings, image, kernel = resolved.settings, resolved.image, resolved.kernel
            progress.warn(await self._room_for(settings.disk_backend, image, spec))
            self._warm_starts.check(spec.boot_mode, settings)
            name, now = spec.name or new_vm_name(), self._clock.now()
            vm = Vm(vm_id, name, now, settings, VmState.CREATING, state_since=now, owner=caller.uid)
            steps = (*self._pipelines.make, *(self._pipelines.start if start else self._pipelines.leave_stopped))
            target = self._target(progress, vm, image, kernel)
            target.keeper = keeper
            target.created = True
            if start:
                target.warm = await self._warm_starts.memory_for(spec.boot_mode, vm, image, kernel, progress)
            async with self._fleet.lock(vm.id):
                made = await self._run(steps, target, progress)
            progress.warn(target.warning)
            if start and target.warm is None and spec.boot_mode is BootMode.AUTO:
                self._warm_starts.make_later(vm, image, kernel)
            return made

        return await self._operations.begin(op_id, caller.uid, OperationKind.CREATE_VM, work, vm_id)

    async def start(self, op_id: str, reference: Reference) -> Ongoing[Vm]:
        """Begin to start a VM that is stopped or asleep. One that runs is left alone: the end is what was asked for."""
        vm = await self._vms.exact(reference)
        if vm.state is VmState.HIBERNATED:
            self._room.check_wake()
        elif not vm.state.alive:
            self._room.check_start()
        return await self._operations.begin(
            op_id,
            reference.caller.uid,
            OperationKind.START_VM,
            lambda progress: self.start_now(vm.id, progress),
            vm.id,
        )

    async def check_again(self, vm: Vm) -> None:
        """Raise what a start of a VM would be refused with, with the settings that it has here: of one that runs, once
        it is stopped."""
        self._room.check_start()
        await self._vms.check_again(vm)
        if not vm.state.alive:  # else its own VMM has its ports
            engine_of(vm, self._engines).check(self._files.paths(vm.id), self._wake.lacking(vm))

    async def boot_again(self, vm_id: str, problem: str = _REBOOTED_IN_VAIN) -> Ongoing[Vm]:
        """Begin to start a VM that has just rebooted, which nobody called for: so the VM tells of a failure itself,
        with `problem` before it.

        A server that stops leaves it to the next one."""
        op_id = self._fleet.reboots.op_id(vm_id) or new_op_id()
        owner = (await self._vms.get(vm_id)).owner

        async def work(progress: Progress) -> Vm:
            try:
                async with self._fleet.lock(vm_id):
                    vm = await self._boot_now(vm_id, op_id, problem, progress)
            except BaseException as error:
                if not self._left_to_the_next(error):
                    await pipeline.uninterrupted(self._fleet.reboots.end(vm_id, op_id))
                raise
            await self._fleet.reboots.end(vm_id, op_id)
            return vm

        return await self._operations.begin(op_id, owner, OperationKind.RESTART_VM, work, vm_id)

    async def _boot_now(self, vm_id: str, op_id: str, problem: str, progress: Progress) -> Vm:
        """The caller holds the VM's lock."""
        if self._fleet.reboots.op_id(vm_id) != op_id:  # somebody has started or stopped it since
            return await self._vms.get(vm_id)
        try:
            if self._fleet.reboots.too_many(vm_id, self._clock.monotonic()):
                raise await self._reboots_for_ever(vm_id)
            return await self._start(vm_id, progress)
        except (Exception, asyncio.CancelledError) as error:
            if not self._left_to_the_next(error):
                cause = pipeline.root_cause(error)
                told = "that was cancelled" if isinstance(cause, asyncio.CancelledError) else str(cause)
                why = f"{problem}: {told}"
                await pipeline.uninterrupted(self._vms.move(vm_id, VmState.ERROR, error=why, op_id=op_id))
            raise

    def _left_to_the_next(self, error: BaseException) -> bool:
        return self._operations.closing and isinstance(pipeline.root_cause(error), asyncio.CancelledError)

    async def _reboots_for_ever(self, vm_id: str) -> Conflict:
        name = (await self._vms.get(vm_id)).name
        return Conflict(
            Reason.WRONG_STATE,
            f"it has done so {reboots.MOST} times within {reboots.PERIOD_SECONDS / 60:.0f} minutes",
            f"see why: ingle vm logs {name}; then: ingle vm start {name}",
        )

    async def start_now(self, vm_id: str, progress: Progress) -> Vm:
        """The same as part of another operation."""
        async with self._fleet.lock(vm_id):
            return await self._start(vm_id, progress)

    async def start_held(self, vm_id: str, progress: Progress, memory: SavedGuest | None = None) -> Vm:
        """The same for who holds the VM's lock: of a guest that goes on, if there is one."""
        return await self._start(vm_id, progress, memory)

    async def _start(self, vm_id: str, progress: Progress, memory: SavedGuest | None = None) -> Vm:
        """The caller holds the VM's lock."""
        vm = await self._vms.get(vm_id)
        if vm.state is VmState.RUNNING:
            return vm
        if vm.state.asleep:
            return await self._wake.now(vm, progress)
        # Refused before the pipeline: its undo would say "stopped" of a VM that it never got hold of.
        check_move(vm.name, vm.state, VmState.STARTING)
        engine_of(vm, self._engines).check(self._files.paths(vm_id), vm.settings.ports)
        self._room.check_start()
        image = await self._images.get(vm.settings.image_id)
        kernel = await self._kernels.get(vm.settings.kernel_id)
        check_memory_holds(vm.settings.memory_bytes, kernel, f"ingle vm update {vm.name} --memory")
        target = self._target(progress, vm, image, kernel)
        if memory is None:
            return await self._run(self._pipelines.start, target, progress)
        memory.put_into(target)
        return await self._run(self._pipelines.go_on, target, progress)

    def _target(self, progress: Progress, vm: Vm, image: Image, kernel: Kernel) -> Start:
        return Start(
            op_id=progress.operation.id,
            vm_id=vm.id,
            paths=self._files.paths(vm.id),
            vm=vm,
            image=image,
            kernel=kernel,
            token=secrets.token_bytes(32),  # a new one at each boot: one that leaked opens no other
        )

    async def _run(self, steps: Sequence[Step[Start]], target: Start, progress: Progress) -> Vm:
        """The caller holds the VM's lock."""
        await pipeline.run(steps, target, self._journal, progress.stage)
        if target.vmm is not None:
            self._fleet.attach(target.vm, target.vmm)
        return target.vm

    async def _room_for(self, disk_backend: str, image: Image, spec: CompleteSpec) -> str:
        """As of DiskRoom.for_new."""
        return await self._room.for_new(disk_backend, self._images.allocated_bytes(image), spec.disk_bytes)

    async def _check_name_free(self, wish: Reference) -> None:
        name = wish.text
        if not name:
            return
        with suppress(NotFound):
            await self._vms.exact(wish)
            raise Conflict(Reason.NAME_TAKEN, f"there is a VM named {name!r} already", f"ingle vm show {name}")


def _wanted(spec: CompleteSpec, *, start: bool) -> Use:
    """What it takes of a quota."""
    there = Use(vms=1, disk_bytes=spec.disk_bytes)
    return there + Use(vcpus=spec.vcpus, memory_bytes=spec.memory_bytes, ports=len(spec.ports)) if start else there
