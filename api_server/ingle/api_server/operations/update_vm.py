"""Change a VM's settings."""

import logging
from collections.abc import Mapping

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Reference
from ingle.api_server.model.errors import Conflict, IngleError, InvalidArgument, Reason
from ingle.api_server.model.guest import GuestIdentity
from ingle.api_server.model.labels import check_labels
from ingle.api_server.model.network import check_nat, check_net_rate
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.spec import (
    HostLimits,
    VmChange,
    VmSpec,
    check_memory_holds,
    check_name,
    least_memory,
    size_text,
)
from ingle.api_server.model.vm import Kernel, Vm
from ingle.api_server.operations.between_boots import BetweenBoots
from ingle.api_server.operations.disk_room import DiskRoom
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.pipeline import Step
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.store.items import ItemStore
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.change_network import ChangeNetwork
from ingle.api_server.steps.change_settings import ChangeSettings
from ingle.api_server.steps.grow_disk import GrowDisk
from ingle.api_server.steps.limit_disk import LimitDisk
from ingle.api_server.steps.target import Change

log = logging.getLogger(__name__)

_TELL_SECONDS = 5.0


class UpdateVm:
    """Changes VMs."""

    def __init__(
        self,
        operations: Operations,
        vms: VmStore,
        kernels: ItemStore[Kernel],
        journal: Journal,
        fleet: Fleet,
        guests: UseGuest,
        files: VmFiles,
        backends: Mapping[str, DiskBackend],
        network: HostNetwork,
        limits: HostLimits,
        room: DiskRoom,
        between_boots: BetweenBoots,
    ) -> None:
        self._operations = operations
        self._vms = vms
        self._kernels = kernels
        self._journal = journal
        self._fleet = fleet
        self._guests = guests
        self._files = files
        self._limits = limits
        self._room = room
        self._between_boots = between_boots
        self._settings = ChangeSettings(vms, journal, backends)
        self._connection = ChangeNetwork(network)
        self._disk_rates = LimitDisk()
        self._disk = GrowDisk(backends)

    @property
    def steps(self) -> tuple[Step[Change], ...]:
        """Every step there is, for recovery to find by name."""
        return self._settings, self._connection, self._disk_rates, self._disk

    async def update(
        self, op_id: str, reference: Reference, change: VmChange, restart_seconds: float | None = None
    ) -> Ongoing[Vm]:
        """Begin to change a VM. What can be refused is refused here, and stops nothing.

        A VM that runs is stopped for a change that needs it, and started again, where `restart_seconds` says how long
        its guest may take to power off; None refuses that."""
        vm = await self._vms.exact(reference)
        self._room.check_record()
        if change.name is not None:
            check_name(change.name)
        kernel = await self._kernels.get(vm.settings.kernel_id)
        wish = VmSpec(
            vcpus=change.vcpus,
            memory_bytes=change.memory_bytes,
            disk_bytes=change.disk_bytes,
            pause_after=change.pause_after,
            hibernate_after=change.hibernate_after,
            delete_after=change.delete_after,
            disk_iops=change.disk_iops,
            disk_bytes_per_second=change.disk_bytes_per_second,
            net_bytes_per_second=change.net_bytes_per_second,
            auto_start=change.auto_start,
        )
        check_labels(change.labels or {})
        wish.check(self._limits, least_memory(kernel))
        if change.memory_bytes is not None:
            check_memory_holds(change.memory_bytes, kernel)
        self._check(vm, change)
        warning = "" if change.disk_bytes is None else await self._room.for_growth(vm, change.disk_bytes)
        if change.needs_stopped and not vm.state.idle:
            self._room.check_start()
            await self._vms.check_again(change.applied(vm))
        if restart_seconds is None:
            self._check_state(vm, change)

        async def change_now(progress: Progress) -> Vm:
            async with self._fleet.lock(vm.id):
                now = await self._vms.get(vm.id)
                self._check(now, change)
                self._check_state(now, change)
                # Half a change would be neither what was nor what was asked for: a cancellation comes too late.
                return await pipeline.uninterrupted(self._change(now, change.applied(now), progress))

        async def work(progress: Progress) -> Vm:
            progress.warn(warning)
            now = await self._vms.get(vm.id)
            if restart_seconds is None or not change.needs_stopped or now.state.idle:
                return await change_now(progress)
            self._check(now, change)
            return await self._between_boots.run(now, restart_seconds, progress, lambda: change_now(progress))

        return await self._operations.begin(op_id, reference.caller.uid, OperationKind.UPDATE_VM, work, vm.id)

    async def _change(self, now: Vm, new: Vm, progress: Progress) -> Vm:
        steps: list[Step[Change]] = [self._settings]
        target = Change(progress.operation.id, now.id, self._files.paths(now.id), now, new)
        if _connection(new) != _connection(now) and new.slot is not None and new.vmm is not None:
            steps.append(self._connection)
        if new.settings.disk_rates != now.settings.disk_rates and new.state.alive:
            target.vmm = self._fleet.live_vmm(now)
            steps.append(self._disk_rates)
        if new.settings.disk_bytes != now.settings.disk_bytes:
            steps.append(self._disk)
        await pipeline.run(steps, target, self._journal, progress.stage)
        if new.name != now.name and new.state.reachable:
            progress.stage("guest", f"telling the guest that it is {new.name}")
            await self._tell_name(new)
        elif new.name != now.name and new.state.asleep:
            self._fleet.renamed_asleep.add(new.id)
        return new

    async def _tell_name(self, vm: Vm) -> None:
        """A guest that does not listen learns it when it boots; one that sleeps, when it wakes."""
        try:
            await self._guests.peek(vm).take_identity(GuestIdentity(hostname=vm.name), _TELL_SECONDS)
        except IngleError as error:
            log.warning("the guest keeps its hostname for now", extra={"vm": vm.id, "error": error.message})

    def _check(self, vm: Vm, change: VmChange) -> None:
        if change.expected_generation not in (None, vm.generation):
            raise Conflict(
                Reason.CHANGED_MEANWHILE,
                f"VM {vm.name!r} was changed meanwhile: its generation is {vm.generation}, "
                f"not {change.expected_generation}",
                f"ingle vm show {vm.name}",
            )
        check_nat(vm.settings.network, change.nat)
        check_net_rate(vm.settings.network, change.net_bytes_per_second)
        has = vm.settings.disk_bytes
        if change.disk_bytes is not None and change.disk_bytes < has:
            raise InvalidArgument(
                f"disk size {size_text(change.disk_bytes)}: a disk only grows, and it has {size_text(has)}",
            )

    def _check_state(self, vm: Vm, change: VmChange) -> None:
        """Last of all: who hears of it may have the VM stopped for the change, which is not to be for nothing."""
        if change.needs_stopped and not vm.state.idle:
            raise Conflict(
                Reason.WRONG_STATE,
                f"VM {vm.name!r} is {vm.state.value}; vcpus, memory and disk change only while it is stopped",
                f"ingle vm stop {vm.name}; or add --restart: it is stopped, changed and started",
            )


def _connection(vm: Vm) -> tuple[bool, int]:
    """What of its settings a VM that runs has to be connected anew for."""
    return vm.settings.nat, vm.settings.net_bytes_per_second
