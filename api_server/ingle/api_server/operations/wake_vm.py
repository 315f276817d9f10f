"""Resume and wake: a guest that stands still goes on, from memory or from the host's disk."""

import asyncio
from collections.abc import Mapping, Sequence

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Reference
from ingle.api_server.model.errors import Conflict, IngleError, Reason
from ingle.api_server.model.ids import new_op_id
from ingle.api_server.model.network import PublishedPort
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Image, Kernel, Vm, VmState
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.activation import ActivationSockets
from ingle.api_server.ports.engine import Engine, engine_of
from ingle.api_server.ports.memories import Memories, SavedMemory
from ingle.api_server.ports.store.items import ItemStore
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.resume import Resume
from ingle.api_server.steps.target import Sleep, Start


class WakeVm:
    """Has guests go on, for who says so and for who wants something of them."""

    def __init__(
        self,
        operations: Operations,
        vms: VmStore,
        images: ItemStore[Image],
        kernels: ItemStore[Kernel],
        journal: Journal,
        fleet: Fleet,
        files: VmFiles,
        memories: Memories,
        engines: Mapping[str, Engine],
        room: DiskRoom,
        sockets: ActivationSockets,
        resume: Resume,
        wake: Sequence[Step[Start]],
    ) -> None:
        """`resume` lets one that is paused go on, which one that hibernates is after `wake`."""
        self._operations = operations
        self._vms = vms
        self._images = images
        self._kernels = kernels
        self._journal = journal
        self._fleet = fleet
        self._files = files
        self._memories = memories
        self._engines = engines
        self._room = room
        self._sockets = sockets
        self._resume = resume
        self._wake = wake
        self._waking: dict[str, asyncio.Task[None]] = {}

    async def resume(self, op_id: str, reference: Reference) -> Ongoing[Vm]:
        """Begin to resume a VM that is paused. One that runs is left alone."""
        return await self._begin(op_id, reference, OperationKind.RESUME_VM)

    async def wake(self, op_id: str, reference: Reference) -> Ongoing[Vm]:
        """Begin to wake a VM that hibernates, or is paused. One that runs is left alone."""
        return await self._begin(op_id, reference, OperationKind.WAKE_VM)

    async def now(self, vm: Vm, progress: Progress) -> Vm:
        """The same as part of another operation, for a VM that is asleep. The caller holds its lock."""
        if vm.state is VmState.PAUSED:
            progress.stage(self._resume.name, self._resume.text)
            return await self._resume_now(vm, progress.operation.id)
        return await self._wake_now(vm, progress)

    def lacking(self, vm: Vm) -> list[PublishedPort]:
        """Ports of a VM without a VMM that this server does not hold for it."""
        held = self._sockets.listening(vm.id)
        return [port for port in vm.settings.ports if port not in held]

    async def waken(self, vm_id: str) -> None:
        """Return when the VM is awake, for who wants something of its guest: woken once, whoever waits. Raises why it
        can't be. One that is neither asleep nor about to be is left as it is."""
        if (waking := self._waking.get(vm_id)) is None:
            waking = asyncio.create_task(self._waken(vm_id), name=f"waken-{vm_id}")
            self._waking[vm_id] = waking
            waking.add_done_callback(lambda done: self._waked(vm_id, done))
        await asyncio.shield(waking)

    def _waked(self, vm_id: str, done: "asyncio.Task[None]") -> None:
        del self._waking[vm_id]
        if not done.cancelled():
            done.exception()  # nobody may be waiting any more; the VM tells of it

    async def _waken(self, vm_id: str) -> None:
        async with self._fleet.lock(vm_id):
            vm = await self._vms.get(vm_id)
            if vm.state is VmState.PAUSED:  # sooner done than an operation is recorded
                await self._resume_now(vm)
                return
        if vm.state is not VmState.HIBERNATED:
            return

        async def work(progress: Progress) -> None:
            async with self._fleet.lock(vm_id):
                now = await self._vms.get(vm_id)
                if now.state.asleep:
                    await self.now(now, progress)

        await (await self._operations.begin(new_op_id(), vm.owner, OperationKind.WAKE_VM, work, vm_id)).result()

    async def _begin(self, op_id: str, reference: Reference, kind: OperationKind) -> Ongoing[Vm]:
        vm = await self._vms.exact(reference)
        _check(vm, kind)

        async def work(progress: Progress) -> Vm:
            async with self._fleet.lock(vm.id):
                now = await self._vms.get(vm.id)
                _check(now, kind)
                return await self.now(now, progress) if now.state.asleep else now

        return await self._operations.begin(op_id, reference.caller.uid, kind, work, vm.id)

    async def _resume_now(self, vm: Vm, op_id: str = "") -> Vm:
        target = Sleep(op_id, vm.id, self._files.paths(vm.id), vm, self._fleet.live_vmm(vm))
        target.may_rest = vm.id not in self._fleet.only_paused
        target.renamed = vm.id in self._fleet.renamed_asleep
        await pipeline.uninterrupted(self._resume.run(target))
        self._fleet.renamed_asleep.discard(vm.id)
        return target.vm

    async def _wake_now(self, vm: Vm, progress: Progress) -> Vm:
        op_id, paths = progress.operation.id, self._files.paths(vm.id)
        try:
            kernel = await self._kernels.get(vm.settings.kernel_id)
            memory = await self._usable(vm, kernel)
            engine_of(vm, self._engines).check(paths, self.lacking(vm))
            self._room.check_wake()
            target = Start(
                op_id=op_id,
                vm_id=vm.id,
                paths=paths,
                vm=vm,
                image=await self._images.get(vm.settings.image_id),
                kernel=kernel,
                token=await self._vms.token(vm.id),
                acceleration=memory.acceleration,
                memory=paths.memory,
                publishes_later=True,
                boot_id=memory.boot_id,
            )
            await pipeline.run(self._wake, target, self._journal, progress.stage)
        except Exception as error:
            cause = pipeline.root_cause(error)
            said = cause.message if isinstance(cause, IngleError) else str(cause)
            await self._vms.note_sleep_error(vm.id, f"it could not wake: {said}", op_id)
            raise
        self._fleet.attach(target.vm, target.live_vmm)
        progress.stage(self._resume.name, self._resume.text)
        awake = await self._resume_now(target.vm, op_id)
        await self._memories.remove(paths)
        return awake

    async def _usable(self, vm: Vm, kernel: Kernel) -> SavedMemory:
        """What the VM can go on from. Raises Conflict(WRONG_STATE) when nothing is."""
        memory = await self._memories.find(self._files.paths(vm.id))
        if memory is None:
            why = "what was saved of its memory is gone, or damaged"
        elif memory.disk_generation != vm.disk_generation:
            why = "what was saved of its memory is of an older disk"
        elif memory.key != await engine_of(vm, self._engines).memory_key(vm, kernel, memory.acceleration):
            why = "its memory was saved by another VMM, or on another processor"
        else:
            return memory
        raise Conflict(
            Reason.WRONG_STATE,
            f"VM {vm.name!r} can't go on where it was: {why}",
            f"to boot it from its disk: ingle vm restart {vm.name}",
        )


def _check(vm: Vm, kind: OperationKind) -> None:
    waking = kind is OperationKind.WAKE_VM
    if vm.state in {VmState.PAUSED, VmState.RUNNING} or (waking and vm.state is VmState.HIBERNATED):
        return
    verb = "wake" if vm.state is VmState.HIBERNATED else "start"
    problem = f"VM {vm.name!r} is {vm.state.value}; one that is {'asleep' if waking else 'paused'} can be"
    raise Conflict(Reason.WRONG_STATE, f"{problem} {'woken' if waking else 'resumed'}", f"ingle vm {verb} {vm.name}")
