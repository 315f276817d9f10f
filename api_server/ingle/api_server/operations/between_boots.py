"""A restart, and what is done to a VM that runs while it is stopped, as one: whoever leaves and whatever is killed
meanwhile, it runs again afterwards."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ingle.api_server.model.caller import Reference
from ingle.api_server.model.errors import IngleError, Reason
from ingle.api_server.model.operation import Failure, OperationKind
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.operations.start_vm import StartVm
from ingle.api_server.operations.stop_vm import StopVm
from ingle.api_server.pipeline import root_cause, uninterrupted
from ingle.api_server.ports.store.vms import VmStore

R = TypeVar("R")
Work = Callable[[], Awaitable[object]]


class BetweenBoots:
    """Stops VMs, has something done or nothing, and starts them."""

    def __init__(self, operations: Operations, vms: VmStore, fleet: Fleet, stop: StopVm, start: StartVm) -> None:
        self._operations = operations
        self._vms = vms
        self._fleet = fleet
        self._stop = stop
        self._start = start

    async def restart(self, op_id: str, reference: Reference, timeout_seconds: float) -> Ongoing[Vm]:
        """Begin to stop and start a VM; one that does not run is just started. A start that would be refused stops
        nothing."""
        vm = await self._vms.exact(reference)
        if vm.state.alive or vm.state is VmState.HIBERNATED:  # which would lose what it has in memory for nothing
            await self._start.check_again(vm)

        async def work(progress: Progress) -> Vm:
            now = await self._vms.get(vm.id)
            if now.state.idle:
                return await self._start.start_now(now.id, progress)
            return await self.run(now, timeout_seconds, progress)

        return await self._operations.begin(op_id, reference.caller.uid, OperationKind.RESTART_VM, work, vm.id)

    async def run(self, vm: Vm, timeout_seconds: float, progress: Progress, work: Work | None = None) -> Vm:
        """Do `work` with `vm`, which runs, while it is stopped. When that fails it is started all the same.

        A cancellation comes too late, but for that of a server which stops: the next one starts the VM then, as it does
        when this one is killed."""
        await self._fleet.reboots.add(vm.id)
        boot = self._fleet.reboots.op_id(vm.id)
        assert boot is not None
        try:
            return await self._to_the_end(self._run(vm, timeout_seconds, boot, progress, work))
        except BaseException as error:
            if not isinstance(root_cause(error), asyncio.CancelledError):
                await uninterrupted(self._fleet.reboots.end(vm.id, boot))
                raise
            told = f"the server was stopped in the middle of it: the next one starts VM {vm.name!r}"
            progress.if_cancelled = Failure(Reason.SERVER_STOPPING, told, f"ingle vm show {vm.id}")
            raise

    async def _run(
        self,
        vm: Vm,
        timeout_seconds: float,
        boot: str,
        progress: Progress,
        work: Work | None,
    ) -> Vm:
        await self._stop.stop_now(vm.id, timeout_seconds, progress, stays=False)
        if work is None:
            return await self._start_again(vm, boot, progress, f"VM {vm.name!r} is stopped, and")
        try:
            await work()
        except Exception as error:
            await self._start_again(vm, boot, progress, f"{_told(error)}; and VM {vm.name!r}, as it was,")
            raise
        return await self._start_again(vm, boot, progress, f"VM {vm.name!r} is changed, and")

    async def _start_again(self, vm: Vm, boot: str, progress: Progress, so_far: str) -> Vm:
        """Unless somebody has stopped or started it meanwhile, who has the word on it."""
        if self._fleet.reboots.op_id(vm.id) == boot:
            try:
                await self._start.start_now(vm.id, progress)
            except Exception as error:
                problem = f"{so_far} can't be started: {_told(error)}"
                cause = root_cause(error)
                reason, remedy = (
                    (cause.reason, cause.remedy) if isinstance(cause, IngleError) else (Reason.INTERNAL, "")
                )
                raise IngleError(reason, problem, remedy or f"ingle vm start {vm.id}") from error
        await uninterrupted(self._fleet.reboots.end(vm.id, boot))
        return await self._vms.get(vm.id)

    async def _to_the_end(self, work: Coroutine[Any, Any, R]) -> R:
        task = asyncio.create_task(work)
        while True:
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():
                    raise
                if self._operations.closing:
                    task.cancel()


def _told(error: BaseException) -> str:
    return Failure.of(root_cause(error)).message
