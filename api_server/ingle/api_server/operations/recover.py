"""What a starting server does before it serves: finish or undo whatever an earlier one was in the middle of.

The journal says which steps were begun; their undos need ids alone. Then every VM the store believes alive is looked
for, and adopted or cleaned up. Nothing is trusted but the store.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, assert_never

from ingle.api_server import pipeline
from ingle.api_server.model.errors import IngleError, Reason
from ingle.api_server.model.event import StopCause
from ingle.api_server.model.network import SLOTS_PER_NETWORK, gateway_of
from ingle.api_server.model.operation import Failure, Operation, OperationKind, OperationState
from ingle.api_server.model.resource import Resource, ResourceKind
from ingle.api_server.model.vm import Image, Kernel, LiveVmm, Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.engine import Ending, Engine, Vmm, Vmms, engine_of
from ingle.api_server.ports.memories import Memories
from ingle.api_server.ports.names import NameService
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.snapshot_files import SnapshotFiles
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store.items import ItemStore
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.operations import OperationStore
from ingle.api_server.ports.store.snapshots import SnapshotStore
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.release import Release
from ingle.api_server.steps.snapshot_target import SnapshotTarget
from ingle.api_server.steps.target import PristineRemains, VmTarget

log = logging.getLogger(__name__)

_UNSEEN = "its VMM ended while no server was there to see it"
_ENDED = "the server ended in the middle of it; the next one "
_ALL_UNDONE = "undid what had been done"
_ONE_WAY = {
    OperationKind.STOP_VM: "left the VM running, or stopped it",
    OperationKind.RESTART_VM: "left the VM running, or starts it",
    OperationKind.KILL_VM: "left the VM running, or stopped it",
    OperationKind.PAUSE_VM: "left the VM running, or paused it",
    OperationKind.RESUME_VM: "left the VM paused, or resumed it",
    OperationKind.HIBERNATE_VM: "left the VM running, paused or hibernated",
    OperationKind.WAKE_VM: "left the VM hibernated, paused or running",
    OperationKind.DELETE_VM: "left the VM as it was, or deleted it",
    OperationKind.RESTORE_VM: "left the VM as it was, or put it back",
    OperationKind.DELETE_SNAPSHOT: "left it as it was, or deleted it",
    OperationKind.FLATTEN_SNAPSHOT: "left it as it was, or made a whole of it",
    OperationKind.DELETE_IMAGE: "left it as it was, or deleted it",
    OperationKind.DELETE_KERNEL: "left it as it was, or deleted it",
}
"""What is not undone."""

_MORE = frozenset({OperationKind.FORK_VM})
"""What is not all done when the VM that it names is complete."""


class Recovery:
    """Run once, before the first call is served, under the lock of the state directory."""

    def __init__(
        self,
        *,
        vms: VmStore,
        images: ItemStore[Image],
        kernels: ItemStore[Kernel],
        operations: OperationStore,
        journal: Journal,
        clock: Clock,
        fleet: Fleet,
        files: VmFiles,
        memories: Memories,
        pristine_files: VmFiles,
        engines: Mapping[str, Engine],
        vmms: Vmms,
        network: HostNetwork,
        names: NameService,
        backends: Mapping[str, DiskBackend],
        release: Release,
        image_library: Library,
        kernel_library: Library,
        snapshots: SnapshotStore,
        snapshot_files: SnapshotFiles,
        steps: Sequence[Step[Any]],
    ) -> None:
        self._vms = vms
        self._images = images
        self._kernels = kernels
        self._operations = operations
        self._journal = journal
        self._clock = clock
        self._fleet = fleet
        self._files = files
        self._memories = memories
        self._pristine_files = pristine_files
        self._engines = engines
        self._vmms = vmms
        self._network = network
        self._names = names
        self._backends = backends
        self._release = release
        self._image_library = image_library
        self._kernel_library = kernel_library
        self._snapshots = snapshots
        self._snapshot_files = snapshot_files
        self._steps = {step.name: step for step in steps}

    async def run(self) -> None:
        """Leave nothing behind, lose nothing. A part that fails is logged, and tried again at the next start."""
        await self._undo_open_operations(ResourceKind.VM)
        await self._undo_open_operations(ResourceKind.WARM_MEMORY)
        for vm in await self._vms.all():
            try:
                await self._settle(vm)
            except Exception:  # one VM must not keep the others, and the server, from coming up
                log.exception("VM %s could not be recovered", vm.id)
        await self._fleet.reboots.tidy()
        # One that was being made may keep a guest from going on, whose VMM is this server's by now.
        await self._undo_open_operations(ResourceKind.SNAPSHOT)
        await self._drop_unused_snapshots()
        await self._reconcile_network()
        await self._reconcile_disks()
        try:
            await self._sweep()
        except Exception:  # what can't be removed takes room, and no more
            log.exception("something of an earlier server's could not be removed")
        for operation in await self._operations.latest(limit=1000):
            if operation.state is OperationState.RUNNING:
                await self._end(operation)

    async def _undo_open_operations(self, kind: ResourceKind) -> None:
        begun: defaultdict[tuple[str, Resource], list[Step[Any]]] = defaultdict(list)
        for entry in await self._journal.open_entries():
            if entry.resource.kind is not kind:
                continue
            if entry.step in self._steps:
                begun[entry.op_id, entry.resource].append(self._steps[entry.step])
            else:  # its entry stays, for a server that knows the step
                log.error(
                    "step %s of an interrupted operation can't be undone: it is of another version of ingle",
                    entry.step,
                    extra={"op_id": entry.op_id, entry.resource.kind.value: entry.resource.id},
                )
        for (op_id, resource), steps in begun.items():
            log.warning("undoing an interrupted operation", extra={"op_id": op_id, kind.value: resource.id})
            await pipeline.undo(steps, self._target(op_id, resource), self._journal)

    async def _drop_unused_snapshots(self) -> None:
        """Those that go with their last users. Their files are swept away, with what else is of no snapshot."""
        for snapshot in reversed(await self._snapshots.all()):  # the newer ones rest on the older ones
            if snapshot.anonymous and not (await self._snapshots.get(snapshot.id)).used_by:
                await self._snapshots.delete(snapshot.id)

    def _target(self, op_id: str, resource: Resource) -> pipeline.Target:
        if resource.kind is ResourceKind.SNAPSHOT:
            return SnapshotTarget(op_id, resource.id)
        if resource.kind is ResourceKind.WARM_MEMORY:
            return PristineRemains(op_id=op_id, vm_id=resource.id, paths=self._pristine_files.paths(resource.id))
        return VmTarget(op_id=op_id, vm_id=resource.id, paths=self._files.paths(resource.id))

    async def _end(self, operation: Operation) -> None:
        """Nobody has recorded how it ended, and by now it has."""
        kept = await self._journal.kept(operation.id)
        if _is_done(operation, kept):
            ended = operation.ended(OperationState.SUCCEEDED, self._clock.now())
        else:
            ended = operation.ended(OperationState.FAILED, self._clock.now(), _interrupted(operation, kept))
        await self._operations.save(replace(ended, stages=operation.stages))

    async def _settle(self, vm: Vm) -> None:
        if vm.asleep_since is None or vm.state is VmState.PAUSED:  # half of what was to be saved, or what was used up
            await self._memories.remove(self._files.paths(vm.id))
        if await self._vms.changed(vm.id) is None:  # else it is to be put back, which was not possible
            await self._files.drop_former_disk(self._files.paths(vm.id))
        match vm.state:
            case VmState.RUNNING | VmState.PAUSED:
                await self._adopt(vm)
            case VmState.STARTING if vm.asleep_since is not None:
                await self._clean_up(vm, VmState.HIBERNATED)
            case VmState.STARTING:  # who was about it has ended
                await self._start_if_host_did(vm)
                await self._clean_up(vm, VmState.STOPPED, StopCause.START_FAILED)
            case VmState.STOPPING:
                await self._clean_up(vm, VmState.STOPPED, StopCause.ASKED)
            case VmState.STOPPED | VmState.ERROR:
                await self._start_if_host_did(vm)
            case VmState.CREATING | VmState.HIBERNATED:
                """There is no process; what is half made is in the journal."""
            case _:
                assert_never(vm.state)

    async def _adopt(self, vm: Vm) -> None:
        if vm.vmm is not None:
            try:
                lives_on = await self._take_over(vm, vm.vmm)
            except IngleError as error:  # it lives, and nobody may take it for dead
                self._fleet.does_not_answer(vm.id, error.message)
                raise
            if lives_on:
                return
        ending = self._vmms.ending(self._files.paths(vm.id)) or Ending(_UNSEEN)
        # First of all: this server may be killed, and the next one does not see how it ended.
        if ending.restarts or (ending.failure and vm.settings.auto_start):
            await self._fleet.rebooted(vm.id)
        await self._start_if_host_did(vm)
        if ending.failure:
            await self._clean_up(vm, VmState.ERROR, StopCause.VMM_DIED, ending.failure)
        else:
            cause = StopCause.GUEST_REBOOTED if ending.restarts else StopCause.GUEST_POWERED_OFF
            await self._clean_up(vm, VmState.STOPPED, cause)

    async def _start_if_host_did(self, vm: Vm) -> None:
        """Unless it has been as it is since the host started, as one that somebody has stopped."""
        if vm.settings.auto_start and vm.state_since < self._clock.booted_at():
            await self._fleet.rebooted(vm.id)

    async def _take_over(self, vm: Vm, live: LiveVmm) -> bool:
        """Whether its VMM lives on, as ours. Raises IngleError when it lives on and is not."""
        if not self._vmms.lives(live):
            return False
        token = await self._vms.token(vm.id)
        vmm = await engine_of(vm, self._engines).adopt(vm, self._files.paths(vm.id), live, token)
        if vmm is None:
            return False
        await _do_as_recorded(vm, vmm)
        log.info("adopted a running VM", extra={"vm": vm.id, "pid": vmm.pid})
        self._fleet.attach(vm, vmm)
        return True

    async def _clean_up(self, vm: Vm, state: VmState, cause: StopCause | None = None, error: str = "") -> None:
        log.warning("cleaning up after a VM", extra={"vm": vm.id, "state": vm.state.value, "error": error})
        await self._vmms.kill_all(self._files.paths(vm.id))
        await self._release.of(vm)
        await self._vms.move(vm.id, state, error=error, cause=cause)

    async def _reconcile_network(self) -> None:
        connected = [vm for vm in await self._vms.all() if vm.slot is not None and vm.vmm is not None]
        try:
            if connected or not await self._network.problem():
                await self._network.reconcile(connected)
            gateways = {
                (vm.slot // SLOTS_PER_NETWORK, gateway_of(vm.address)) for vm in connected if vm.slot is not None
            }
            for number, gateway in sorted(gateways):
                await self._network.lead_dns(number, await self._names.serve(gateway))
        except IngleError as error:
            log.error("networks may be other than they should", extra={"error": error.message})

    async def _reconcile_disks(self) -> None:
        alive = [vm for vm in await self._vms.all() if vm.vmm is not None]
        for backend in self._backends.values():
            try:
                await backend.reconcile([vm for vm in alive if vm.settings.disk_backend == backend.name])
            except IngleError as error:
                log.error("disks of %s may be other than they should", backend.name, extra={"error": error.message})

    async def _sweep(self) -> None:
        lost = self._files.of_others({vm.id for vm in await self._vms.all()})
        if lost:
            log.warning("%s is of no VM that is known, and kept, with all images and kernels", lost[0])
        if lost or not await self._operations.latest(limit=1):
            # Another database than there was: whatever lies in the libraries is of the one that was lost, and may be
            # all that is left of it, or what the disks that it knew rest on.
            await self._image_library.sweep(None)
            await self._kernel_library.sweep(None)
            return
        await self._snapshot_files.sweep({snapshot.id for snapshot in await self._snapshots.all()})
        await self._image_library.sweep({image.id for image in await self._images.all()})
        await self._kernel_library.sweep({kernel.id for kernel in await self._kernels.all()})


async def _do_as_recorded(vm: Vm, vmm: Vmm) -> None:
    """The server that was killed may have been about to say that it has paused the guest, or resumed it, or to change
    what it may take of its disk. A VMM that can do none of it can still be stopped."""
    try:
        if vm.state is VmState.PAUSED:
            await vmm.pause()
        elif not vmm.stalled:
            await vmm.resume()
        await vmm.limit_disk(vm.settings.disk_rates)
    except IngleError as error:
        log.error("a guest may not do what is known of it: %s", error.message, extra={"vm": vm.id})


def _interrupted(operation: Operation, kept: Collection[Resource]) -> Failure:
    one_way = _ONE_WAY.get(operation.kind)
    if one_way is None:
        stays = ", ".join(f"{each.kind.value} {each.id}" for each in kept)
        what = f"undid what had been done, but for what was complete, and stays: {stays}" if stays else _ALL_UNDONE
        return Failure(Reason.SERVER_STOPPING, f"{_ENDED}{what}")
    noun = operation.kind.about.value
    remedy = f"ingle {noun} show {operation.target_id}" if operation.target_id else f"ingle {noun} list"
    return Failure(Reason.SERVER_STOPPING, _ENDED + one_way, remedy)


def _is_done(operation: Operation, kept: Collection[Resource]) -> bool:
    """Of VMs one may make many, and is about the one that it names; an image, kernel or snapshot is all that it
    makes."""
    if operation.kind in _MORE:
        return False
    about = operation.kind.about
    return any(each.kind is about and (about is not ResourceKind.VM or each.id == operation.target_id) for each in kept)
