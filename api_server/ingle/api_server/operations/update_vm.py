"""Change a VM's settings."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from ingle.api_server.model.errors import Conflict, IngleError, InvalidArgument, Reason
from ingle.api_server.model.guest import GuestConfiguration
from ingle.api_server.model.network import check_nat
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.spec import HostLimits, VmChange, VmSpec, check_memory_holds, check_name, size_text
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Operations, Progress, Running
from ingle.api_server.pipeline import uninterrupted
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.files import VmFiles
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.store import Store

log = logging.getLogger(__name__)

_TELL_SECONDS = 5.0
_IDLE = frozenset({VmState.STOPPED, VmState.ERROR})


class UpdateVm:
    """Changes VMs."""

    def __init__(
        self,
        operations: Operations,
        store: Store,
        fleet: Fleet,
        files: VmFiles,
        backends: Mapping[str, DiskBackend],
        network: HostNetwork,
        limits: HostLimits,
    ) -> None:
        self._operations = operations
        self._store = store
        self._fleet = fleet
        self._files = files
        self._backends = backends
        self._network = network
        self._limits = limits

    async def update(self, op_id: str, reference: str, change: VmChange) -> Running[Vm]:
        """Begin to change a VM. What can be refused is refused here."""
        vm = await self._store.vm(reference)
        if change.name is not None:
            check_name(change.name)
        VmSpec(vcpus=change.vcpus, memory_bytes=change.memory_bytes, disk_bytes=change.disk_bytes).checked(self._limits)
        self._check(vm, change)
        if change.memory_bytes is not None:
            check_memory_holds(change.memory_bytes, await self._store.kernel(vm.kernel_id))

        async def work(progress: Progress) -> Vm:
            async with self._fleet.lock(vm.id):
                now = await self._store.vm(vm.id)
                self._check(now, change)
                # Half a change would be neither what was nor what was asked for: a cancellation comes too late.
                return await uninterrupted(self._change(now, change.applied(now), progress))

        return await self._operations.begin(op_id, OperationKind.UPDATE_VM, work, vm.id)

    async def _change(self, now: Vm, new: Vm, progress: Progress) -> Vm:
        # The name is what can still be refused: it goes first, so that a refused change grows no disk.
        await self._store.update_vm(replace(new, disk_bytes=now.disk_bytes))
        if new.nat != now.nat and new.slot is not None and new.running is not None:
            progress.stage("network", f"turning NAT {'on' if new.nat else 'off'}")
            try:
                await self._network.connect(new)
            except BaseException:
                await uninterrupted(self._store.update_vm(now))
                raise
        if new.disk_bytes != now.disk_bytes:
            progress.stage("disk", f"growing the disk to {size_text(new.disk_bytes)}")
            try:
                await self._backends[now.disk_backend].grow(self._files.paths(now.id).state, new.disk_bytes)
                await self._store.update_vm(new)
            except BaseException:
                await uninterrupted(self._store.update_vm(now))
                raise
        if new.name != now.name and new.state is VmState.RUNNING:
            progress.stage("guest", f"telling the guest that it is {new.name}")
            await self._tell_name(new)
        return new

    async def _tell_name(self, vm: Vm) -> None:
        """A guest that does not listen learns it when it boots."""
        try:
            await self._fleet.channel(vm).configure(GuestConfiguration(hostname=vm.name), _TELL_SECONDS)
        except IngleError as error:
            log.warning("the guest keeps its hostname for now", extra={"vm": vm.id, "error": error.message})

    def _check(self, vm: Vm, change: VmChange) -> None:
        check_nat(vm.network, change.nat)
        if change.needs_stopped and vm.state not in _IDLE:
            raise Conflict(
                Reason.WRONG_STATE,
                f"VM {vm.name!r} is {vm.state.value}; vcpus, memory and disk change only while it is stopped",
                f"ingle vm stop {vm.name}",
            )
        if change.disk_bytes is not None and change.disk_bytes < vm.disk_bytes:
            raise InvalidArgument(
                f"disk size {size_text(change.disk_bytes)}: a disk only grows, and it has {size_text(vm.disk_bytes)}",
            )
