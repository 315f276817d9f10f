"""Pause and hibernate: a guest that nobody needs stands still, in memory or on the host's disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Reference
from ingle.api_server.model.errors import HostProblem, IngleError, Reason
from ingle.api_server.model.ids import new_op_id
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.quota import Use
from ingle.api_server.model.vm import Kernel, Vm, VmState
from ingle.api_server.operations.disk_room import DiskRoom, likely_memory
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.activation import ActivationSockets
from ingle.api_server.ports.engine import Engine, Vmms, engine_of
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.memories import Memories
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.store.items import ItemStore
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.hibernate import Hibernate
from ingle.api_server.steps.mark_paused import MarkPaused
from ingle.api_server.steps.pause import Pause
from ingle.api_server.steps.release import Release
from ingle.api_server.steps.rest import Rest
from ingle.api_server.steps.save_memory import SaveMemory
from ingle.api_server.steps.target import Sleep
from ingle.api_server.steps.withhold_ports import WithholdPorts


@dataclass(frozen=True, slots=True)
class SleepPipelines:
    """The steps, in order. Undone they leave a guest that does what it did before, and by a server that was killed amid
    them one that is paused, or hibernates."""

    pause: Sequence[Step[Sleep]]
    hibernate: Sequence[Step[Sleep]]

    @staticmethod
    def of(
        vms: VmStore,
        kernels: ItemStore[Kernel],
        engines: Mapping[str, Engine],
        memories: Memories,
        vmms: Vmms,
        network: HostNetwork,
        dialler: GuestDialler,
        release: Release,
        sockets: ActivationSockets,
    ) -> "SleepPipelines":
        """Over these ports."""
        mark, withhold, pause = MarkPaused(vms), WithholdPorts(network), Pause(vms)
        save, hibernate = SaveMemory(vms, kernels, engines, memories), Hibernate(vms, vmms, release, sockets)
        return SleepPipelines(
            pause=(mark, withhold, pause),
            hibernate=(mark, withhold, Rest(vms, dialler), pause, save, hibernate),
        )


class SleepVm:
    """Puts VMs to sleep."""

    def __init__(
        self,
        operations: Operations,
        vms: VmStore,
        journal: Journal,
        fleet: Fleet,
        files: VmFiles,
        room: DiskRoom,
        guests: UseGuest,
        engines: Mapping[str, Engine],
        pipelines: SleepPipelines,
    ) -> None:
        self._operations = operations
        self._vms = vms
        self._journal = journal
        self._fleet = fleet
        self._files = files
        self._room = room
        self._guests = guests
        self._engines = engines
        self._pipelines = pipelines

    @property
    def steps(self) -> tuple[Step[Sleep], ...]:
        """Every step there is, for recovery to find by name."""
        return (*self._pipelines.pause, *self._pipelines.hibernate)

    async def pause(self, op_id: str, reference: Reference) -> Ongoing[Vm]:
        """Begin to pause a VM that runs. One that is paused is left alone."""
        vm = await self._vms.exact(reference)
        self._check(vm, VmState.PAUSED)

        async def work(progress: Progress) -> Vm:
            return await self._fall_asleep(vm.id, VmState.PAUSED, progress)

        return await self._operations.begin(op_id, reference.caller.uid, OperationKind.PAUSE_VM, work, vm.id)

    async def hibernate(self, op_id: str, reference: Reference) -> Ongoing[Vm]:
        """Begin to hibernate a VM that runs, or is paused. One that hibernates is left alone."""
        vm = await self._vms.exact(reference)
        self._check(vm, VmState.HIBERNATED)
        await self._check_room(vm)

        async def work(progress: Progress) -> Vm:
            return await self._fall_asleep(vm.id, VmState.HIBERNATED, progress)

        return await self._operations.begin(op_id, reference.caller.uid, OperationKind.HIBERNATE_VM, work, vm.id)

    async def unused(self, vm: Vm, wish: VmState) -> None:
        """Have a VM be PAUSED or HIBERNATED that nobody has called for: its owner's wish. One whose guest somebody is
        inside of by now, or that does something else, is left as it is."""

        async def work(progress: Progress) -> None:
            async with self._fleet.lock(vm.id):
                with self._guests.closed(vm.id) as empty:
                    if empty and (await self._vms.get(vm.id)).state is vm.state:
                        await self._sleep_now(vm.id, wish, progress)

        self._check(vm, wish)
        kind = OperationKind.PAUSE_VM if wish is VmState.PAUSED else OperationKind.HIBERNATE_VM
        await (await self._operations.begin(new_op_id(), vm.owner, kind, work, vm.id)).result()

    def _check(self, vm: Vm, wish: VmState) -> None:
        """Raise what it would be refused with."""
        if vm.state is wish:
            return
        if vm.state is VmState.PAUSED:
            self._fleet.live_vmm(vm)
        else:
            self._fleet.moving_vmm(vm)
        if wish is VmState.HIBERNATED and not engine_of(vm, self._engines).info.saves:
            problem = f"engine {vm.settings.engine} can't save what VM {vm.name!r} has in memory"
            raise HostProblem(Reason.DEPENDENCY_MISSING, problem, f"ingle vm pause {vm.name}")

    async def _check_room(self, vm: Vm) -> None:
        """The same of one that is to hibernate, where its memory has no room, or its owner no more quota."""
        if vm.state is not VmState.HIBERNATED:
            self._room.check_memory(likely_memory(vm, self._fleet.live_vmm(vm)))
            await self._vms.check_room(vm.owner, Use(disk_bytes=vm.settings.memory_bytes))

    async def _fall_asleep(self, vm_id: str, wish: VmState, progress: Progress) -> Vm:
        async with self._fleet.lock(vm_id):
            return await self._sleep_now(vm_id, wish, progress)

    async def _sleep_now(self, vm_id: str, wish: VmState, progress: Progress) -> Vm:
        """The caller holds the VM's lock."""
        vm = await self._vms.get(vm_id)
        self._check(vm, wish)
        if vm.state is wish:
            return vm
        target = Sleep(progress.operation.id, vm_id, self._files.paths(vm_id), vm, self._fleet.live_vmm(vm))
        steps = self._pipelines.pause if wish is VmState.PAUSED else self._pipelines.hibernate
        self._fleet.only_paused.discard(vm_id)
        try:
            if wish is VmState.HIBERNATED:
                await self._check_room(vm)
            await pipeline.run(steps, target, self._journal, progress.stage)
        except Exception as error:
            cause = pipeline.root_cause(error)
            said = cause.message if isinstance(cause, IngleError) else str(cause)
            await self._vms.note_sleep_error(vm_id, f"it could not fall asleep: {said}", target.op_id)
            raise
        finally:
            if (await self._vms.get(vm_id)).state is VmState.HIBERNATED:
                await self._fleet.detach(vm_id)
        if wish is VmState.PAUSED and not vm.error:  # which may be that the guest did not hear that it should go on
            self._fleet.only_paused.add(vm_id)
        return target.vm
