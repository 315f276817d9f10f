"""What a starting server does before it serves: finish or undo whatever an earlier one was in the middle of.

The journal says which steps were begun; their undos need ids alone. Then every VM the store believes alive is looked
for, and adopted or cleaned up. Nothing is trusted but the store.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ingle.api_server import pipeline
from ingle.api_server.model.errors import IngleError, Reason
from ingle.api_server.model.network import SLOTS_PER_NETWORK, gateway_of
from ingle.api_server.model.operation import Failure, Operation, OperationKind, OperationState
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.engine import Ending, Engine
from ingle.api_server.ports.files import VmFiles
from ingle.api_server.ports.names import NameService
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.sources import Library
from ingle.api_server.ports.store import Store
from ingle.api_server.steps.release import Release
from ingle.api_server.steps.target import VmTarget

log = logging.getLogger(__name__)

_UNSEEN = "its VMM ended while no server was there to see it"
_ENDED = "the server ended in the middle of it; the next one "
_ONE_WAY = {
    OperationKind.STOP_VM: "left the VM running, or stopped it",
    OperationKind.RESTART_VM: "left the VM running, or stopped it",
    OperationKind.KILL_VM: "left the VM running, or stopped it",
    OperationKind.DELETE_VM: "left the VM as it was, or deleted it",
}
"""What is not undone."""


class Recovery:
    """Run once, before the first call is served, under the lock of the state directory."""

    def __init__(
        self,
        *,
        store: Store,
        fleet: Fleet,
        files: VmFiles,
        engine: Engine,
        network: HostNetwork,
        names: NameService,
        backends: Mapping[str, DiskBackend],
        release: Release,
        images: Library,
        kernels: Library,
        steps: Sequence[Step[Any]],
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._files = files
        self._engine = engine
        self._network = network
        self._names = names
        self._backends = backends
        self._release = release
        self._images = images
        self._kernels = kernels
        self._steps = {step.name: step for step in steps}

    async def run(self) -> None:
        """Leave nothing behind, lose nothing. A part that fails is logged, and tried again at the next start."""
        await self._undo_open_operations()
        for vm in await self._store.vms():
            try:
                await self._settle(vm)
            except Exception:  # one VM must not keep the others, and the server, from coming up
                log.exception("VM %s could not be recovered", vm.id)
        await self._reconcile_network()
        await self._reconcile_disks()
        try:
            await self._sweep()
        except Exception:  # what can't be removed takes room, and no more
            log.exception("something of an earlier server's could not be removed")
        for operation in await self._store.operations(limit=1000):
            if operation.state is OperationState.RUNNING:
                ended = operation.ended(OperationState.FAILED, datetime.now(UTC), _interrupted(operation))
                await self._store.save_operation(replace(ended, stages=operation.stages))
        await self._fleet.boot_rebooted()

    async def _undo_open_operations(self) -> None:
        begun: defaultdict[tuple[str, str], list[Step[Any]]] = defaultdict(list)
        for entry in await self._store.open_entries():
            if entry.step in self._steps:
                begun[entry.op_id, entry.vm_id].append(self._steps[entry.step])
            else:  # its entry stays, for a server that knows the step
                log.error(
                    "step %s of an interrupted operation can't be undone: it is of another version of ingle",
                    entry.step,
                    extra={"op_id": entry.op_id, "vm": entry.vm_id},
                )
        for (op_id, vm_id), steps in begun.items():
            log.warning("undoing an interrupted operation", extra={"op_id": op_id, "vm": vm_id})
            target = VmTarget(op_id=op_id, vm_id=vm_id, paths=self._files.paths(vm_id))
            await pipeline.undo(steps, target, self._store)

    async def _settle(self, vm: Vm) -> None:
        if vm.state is VmState.RUNNING and vm.running is not None:
            token = await self._store.vm_token(vm.id)
            vmm = await self._engine.adopt(vm, self._files.paths(vm.id), vm.running, token)
            if vmm is not None:
                log.info("adopted a running VM", extra={"vm": vm.id, "pid": vmm.pid})
                self._fleet.attach(vm, vmm)
                return
            ending = self._engine.ending(self._files.paths(vm.id)) or Ending(_UNSEEN)
            await self._clean_up(vm, VmState.ERROR if ending.failure else VmState.STOPPED, ending.failure)
            if ending.restarts:
                await self._fleet.rebooted(vm.id)
        elif vm.state in {VmState.STARTING, VmState.STOPPING}:
            await self._clean_up(vm, VmState.STOPPED, "")

    async def _clean_up(self, vm: Vm, state: VmState, error: str) -> None:
        log.warning("cleaning up after a VM", extra={"vm": vm.id, "state": vm.state.value, "error": error})
        await self._engine.kill_all(self._files.paths(vm.id))
        await self._release.of(vm)
        await self._store.move_vm(vm.id, state, error=error)

    async def _reconcile_network(self) -> None:
        connected = [vm for vm in await self._store.vms() if vm.slot is not None and vm.running is not None]
        try:
            if connected or not await self._network.problem():
                await self._network.reconcile(connected)
            gateways = {
                (vm.slot // SLOTS_PER_NETWORK, gateway_of(vm.running.address))
                for vm in connected
                if vm.running is not None and vm.slot is not None
            }
            for number, gateway in sorted(gateways):
                await self._network.lead_dns(number, await self._names.serve(gateway))
        except IngleError as error:
            log.error("networks may be other than they should", extra={"error": error.message})

    async def _reconcile_disks(self) -> None:
        alive = [vm for vm in await self._store.vms() if vm.running is not None]
        for backend in self._backends.values():
            try:
                await backend.reconcile([vm for vm in alive if vm.disk_backend == backend.name])
            except IngleError as error:
                log.error("disks of %s may be other than they should", backend.name, extra={"error": error.message})

    async def _sweep(self) -> None:
        lost = self._files.of_others({vm.id for vm in await self._store.vms()})
        if lost:
            log.warning("%s is of no VM that is known, and kept, with all images and kernels", lost[0])
        if lost or not await self._store.operations(limit=1):
            # Another database than there was: whatever lies in the libraries is of the one that was lost, and may be
            # all that is left of it, or what the disks that it knew rest on.
            await self._images.sweep(None)
            await self._kernels.sweep(None)
            return
        await self._images.sweep({image.id for image in await self._store.images()})
        await self._kernels.sweep({kernel.id for kernel in await self._store.kernels()})


def _interrupted(operation: Operation) -> Failure:
    one_way = _ONE_WAY.get(operation.kind)
    if one_way is None:
        return Failure(Reason.SERVER_STOPPING, f"{_ENDED}undid what had been done")
    return Failure(Reason.SERVER_STOPPING, _ENDED + one_way, f"ingle vm show {operation.target_id}")
