"""Stop, restart and kill: from a polite request to a signal, and never on before the process is gone."""

import asyncio
import logging
import signal
from dataclasses import replace

from ingle.api_server.model.errors import Conflict, HostProblem, IngleError, Reason, ToolFailed
from ingle.api_server.model.operation import Failure, OperationKind
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import NO_ANSWER, Fleet
from ingle.api_server.operations.runner import Operations, Progress, Running
from ingle.api_server.operations.start_vm import StartVm
from ingle.api_server.pipeline import completed, uninterrupted
from ingle.api_server.ports.engine import Vmm
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.store import Store
from ingle.api_server.steps.release import Release

log = logging.getLogger(__name__)

_TERM_SECONDS = 2.0
_KILL_SECONDS = 30.0


class StopVm:
    """Ends VMMs on purpose."""

    def __init__(
        self,
        operations: Operations,
        store: Store,
        fleet: Fleet,
        release: Release,
        dialler: GuestDialler,
        start: StartVm,
    ) -> None:
        self._operations = operations
        self._store = store
        self._fleet = fleet
        self._release = release
        self._dialler = dialler
        self._start = start

    async def stop(self, op_id: str, reference: str, timeout_seconds: float) -> Running[Vm]:
        """Begin to stop a VM. One that does not run is left alone."""
        vm = await self._store.vm(reference)

        async def work(progress: Progress) -> Vm:
            return await self._stop(vm.id, timeout_seconds, progress)

        return await self._operations.begin(op_id, OperationKind.STOP_VM, work, vm.id)

    async def restart(self, op_id: str, reference: str, timeout_seconds: float) -> Running[Vm]:
        """Begin to stop and start a VM; one that does not run is just started."""
        vm = await self._store.vm(reference)

        async def work(progress: Progress) -> Vm:
            await self._stop(vm.id, timeout_seconds, progress)
            return await self._start.start_now(vm.id, progress)

        return await self._operations.begin(op_id, OperationKind.RESTART_VM, work, vm.id)

    async def kill(self, op_id: str, reference: str, number: int) -> Running[Vm]:
        """Begin to signal a VMM. Raises Conflict(WRONG_STATE) when there is none."""
        vm = await self._store.vm(reference)
        self._fleet.running_vmm(vm)

        async def work(progress: Progress) -> Vm:
            async with self._fleet.lock(vm.id):
                vmm = self._fleet.running_vmm(await self._store.vm(vm.id))
                progress.stage("kill", f"sending signal {signal.Signals(number).name}")
                return await uninterrupted(self._end(vm.id, vmm, number))

        return await self._operations.begin(op_id, OperationKind.KILL_VM, work, vm.id)

    async def _stop(self, vm_id: str, timeout_seconds: float, progress: Progress) -> Vm:
        async with self._fleet.lock(vm_id):
            vm = await self._store.vm(vm_id)
            vmm = self._fleet.vmm(vm_id)
            if vmm is None and vm.state is VmState.RUNNING:
                raise Conflict(Reason.WRONG_STATE, NO_ANSWER, f"ingle vm delete --force {vm.name}, or try a new server")
            if vmm is None:
                self._fleet.stays_stopped(vm_id)
                return vm
            if vm.state is VmState.RUNNING:  # else an earlier stop failed half-way
                await self._mark_stopping(vm_id)
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
                await uninterrupted(self._end(vm_id, vmm, signal.SIGKILL))
                raise
            progress.stage("vmm", "waiting for the VMM to be gone")
            return await completed(self._end(vm_id, vmm, signal.SIGTERM))

    async def _mark_stopping(self, vm_id: str) -> None:
        try:
            await completed(self._store.move_vm(vm_id, VmState.STOPPING))
        except asyncio.CancelledError:  # nobody has asked the guest yet
            await uninterrupted(self._store.move_vm(vm_id, VmState.RUNNING))
            raise
        except HostProblem as error:
            _unless_full(error)

    async def _ask_guest(self, vmm: Vmm, vm: Vm, timeout_seconds: float) -> None:
        channel = self._dialler.channel(vmm.agent)
        try:
            async with asyncio.timeout(timeout_seconds):
                await channel.sync(timeout_seconds)
                await channel.shutdown(timeout_seconds)
                await vmm.wait_gone()
        except (TimeoutError, IngleError) as error:
            log.warning("the guest did not power off", extra={"vm": vm.id, "error": repr(error)})

    async def _end(self, vm_id: str, vmm: Vmm, number: int) -> Vm:
        """Send the signal, harder ones when it does not help, and clean up behind the process that is gone."""
        vmm.signal(number)
        if not await vmm.wait_gone(_TERM_SECONDS):
            vmm.signal(signal.SIGKILL)
            if not await vmm.wait_gone(_KILL_SECONDS):
                raise ToolFailed(Reason.VMM_FAILED, f"VMM process {vmm.pid} survives SIGKILL (is its disk hanging?)")
        vm = await self._store.vm(vm_id)
        await self._release.of(vm)
        try:
            stopped = await self._store.move_vm(vm_id, VmState.STOPPED)
        except HostProblem as error:
            _unless_full(error)
            self._fleet.record_stop_later(vm_id)
            return replace(vm, state=VmState.STOPPED, running=None)
        await self._fleet.detach(vm_id)
        return stopped


def _unless_full(error: HostProblem) -> None:
    """To end a VM needs no space. Raises every other error."""
    if error.reason is not Reason.DISK_FULL:
        raise error
    log.warning("what becomes of a VM is not recorded yet: %s", error.message)
