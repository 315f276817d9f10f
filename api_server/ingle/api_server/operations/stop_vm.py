"""Stop and kill: from a polite request to a signal, and never on before the process is gone."""

import asyncio
import logging
import signal
from dataclasses import replace

from ingle.api_server.model.caller import Reference
from ingle.api_server.model.errors import HostProblem, IngleError, Reason, ToolFailed
from ingle.api_server.model.event import StopCause
from ingle.api_server.model.operation import Failure, OperationKind
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.pipeline import completed, uninterrupted
from ingle.api_server.ports.engine import Vmm
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.memories import Memories
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.release import Release

log = logging.getLogger(__name__)

_TERM_SECONDS = 2.0
_KILL_SECONDS = 30.0


class StopVm:
    """Ends VMMs on purpose."""

    def __init__(
        self,
        operations: Operations,
        vms: VmStore,
        fleet: Fleet,
        release: Release,
        dialler: GuestDialler,
        files: VmFiles,
        memories: Memories,
    ) -> None:
        self._operations = operations
        self._vms = vms
        self._fleet = fleet
        self._release = release
        self._dialler = dialler
        self._files = files
        self._memories = memories

    async def stop(self, op_id: str, reference: Reference, timeout_seconds: float) -> Ongoing[Vm]:
        """Begin to stop a VM. One that hibernates loses what it had in memory; one that does not run is left alone."""
        vm = await self._vms.exact(reference)

        async def work(progress: Progress) -> Vm:
            return await self.stop_now(vm.id, timeout_seconds, progress)

        return await self._operations.begin(op_id, reference.caller.uid, OperationKind.STOP_VM, work, vm.id)

    async def kill(self, op_id: str, reference: Reference, number: int) -> Ongoing[Vm]:
        """Begin to signal a VMM. One that hibernates has none, and loses what it had in memory. Raises
        Conflict(WRONG_STATE) for others without a VMM."""
        vm = await self._vms.exact(reference)
        if vm.state is not VmState.HIBERNATED:
            self._fleet.live_vmm(vm)

        async def work(progress: Progress) -> Vm:
            async with self._fleet.lock(vm.id):
                now = await self._vms.get(vm.id)
                if now.state is VmState.HIBERNATED:
                    return await self._discard_memory(now, StopCause.KILLED, op_id)
                vmm = self._fleet.live_vmm(now)
                progress.stage("kill", f"sending signal {signal.Signals(number).name}")
                return await uninterrupted(self._end(vm.id, vmm, number, StopCause.KILLED, op_id))

        return await self._operations.begin(op_id, reference.caller.uid, OperationKind.KILL_VM, work, vm.id)

    async def end_now(self, vm_id: str, op_id: str) -> Vm:
        """Have no guest of the VM's, without asking it; what was saved of the memory of one that hibernates lies there
        still. The caller holds the VM's lock."""
        vm = await self._vms.get(vm_id)
        if vm.state is VmState.HIBERNATED:
            return await self._vms.move(vm.id, VmState.STOPPED, cause=StopCause.KILLED, op_id=op_id)
        if vm.state.alive:
            vmm = self._fleet.live_vmm(vm)
            return await uninterrupted(self._end(vm_id, vmm, signal.SIGKILL, StopCause.KILLED, op_id))
        self._fleet.stays_stopped(vm_id)
        return vm

    async def stop_now(self, vm_id: str, timeout_seconds: float, progress: Progress, *, stays: bool = True) -> Vm:
        """Stop it as part of another operation; `stays`: and nothing starts it again by itself."""
        op_id = progress.operation.id
        async with self._fleet.lock(vm_id):
            vm = await self._vms.get(vm_id)
            if vm.state is VmState.HIBERNATED:
                progress.stage("memory", "throwing away what was saved of its memory")
                return await self._discard_memory(vm, StopCause.ASKED, op_id)
            if not vm.state.alive:
                if stays:
                    self._fleet.stays_stopped(vm_id)
                return vm
            vmm = self._fleet.live_vmm(vm)
            if vm.state is not VmState.STOPPING:  # else an earlier stop failed half-way
                await self._mark_stopping(vm)
            progress.if_cancelled = Failure(
                Reason.OPERATION_CANCELLED,
                f"cancelled; VM {vm.name!r} is stopped: a guest that was asked to power off can't be called back",
                f"ingle vm start {vm.name}",
            )
            try:
                if not vmm.stalled:
                    progress.stage("guest", "asking the guest to power off")
                    await self._ask_guest(vmm, vm, timeout_seconds)
            except asyncio.CancelledError:
                # Asked is asked: a guest half way down can't be called back, so the stop is finished at once.
                await uninterrupted(self._end(vm_id, vmm, signal.SIGKILL, StopCause.ASKED, op_id))
                raise
            progress.stage("vmm", "waiting for the VMM to be gone")
            return await completed(self._end(vm_id, vmm, signal.SIGTERM, StopCause.ASKED, op_id))

    async def _discard_memory(self, vm: Vm, cause: StopCause, op_id: str) -> Vm:
        """Its disk has what the guest had when it was asked to stand still. First goes what takes room:
        to write that down may take some."""

        async def discard() -> Vm:
            await self._memories.remove(self._files.paths(vm.id))
            return await self._vms.move(vm.id, VmState.STOPPED, cause=cause, op_id=op_id)

        return await uninterrupted(discard())

    async def _mark_stopping(self, vm: Vm) -> None:
        try:
            await completed(self._vms.move(vm.id, VmState.STOPPING))
        except asyncio.CancelledError:  # nobody has asked the guest yet
            await uninterrupted(self._vms.move(vm.id, vm.state))
            raise
        except HostProblem as error:
            _unless_full(error)

    async def _ask_guest(self, vmm: Vmm, vm: Vm, timeout_seconds: float) -> None:
        channel = self._dialler.channel(vmm.agent)
        try:
            async with asyncio.timeout(timeout_seconds):
                if vm.state is VmState.PAUSED:  # it has to write to its disk what it has in memory
                    await vmm.resume()
                    await channel.thaw(timeout_seconds=timeout_seconds)
                await channel.sync(timeout_seconds)
                await channel.shutdown(timeout_seconds)
                await vmm.wait_gone()
        except (TimeoutError, IngleError) as error:
            log.warning("the guest did not power off", extra={"vm": vm.id, "error": repr(error)})

    async def _end(self, vm_id: str, vmm: Vmm, number: int, cause: StopCause, op_id: str) -> Vm:
        """Send the signal, harder ones when it does not help, and clean up behind the process that is gone."""
        vmm.signal(number)
        if not await vmm.wait_gone(_TERM_SECONDS):
            vmm.signal(signal.SIGKILL)
            if not await vmm.wait_gone(_KILL_SECONDS):
                raise ToolFailed(Reason.VMM_FAILED, f"VMM process {vmm.pid} survives SIGKILL (is its disk hanging?)")
        vm = await self._vms.get(vm_id)
        await self._release.of(vm)
        try:
            stopped = await self._vms.move(vm_id, VmState.STOPPED, cause=cause, op_id=op_id)
        except HostProblem as error:
            _unless_full(error)
            self._fleet.record_stop_later(vm_id, cause)
            return replace(vm, state=VmState.STOPPED, vmm=None)
        await self._fleet.detach(vm_id)
        return stopped


def _unless_full(error: HostProblem) -> None:
    """To end a VM needs no space. Raises every other error."""
    if error.reason is not Reason.DISK_FULL:
        raise error
    log.warning("what becomes of a VM is not recorded yet: %s", error.message)
