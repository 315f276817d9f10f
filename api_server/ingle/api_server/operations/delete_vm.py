"""Delete: everything a VM owns goes, every part is tried, and a crash half-way only delays it."""

from ingle.api_server import pipeline
from ingle.api_server.model.errors import Conflict, HostProblem, Reason
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Operations, Progress, Running
from ingle.api_server.ports.files import VmFiles
from ingle.api_server.ports.store import Store
from ingle.api_server.steps.delete import Delete
from ingle.api_server.steps.target import VmTarget

_IDLE = frozenset({VmState.STOPPED, VmState.ERROR})


class DeleteVm:
    """Deletes VMs."""

    def __init__(self, operations: Operations, store: Store, fleet: Fleet, files: VmFiles, delete: Delete) -> None:
        self._operations = operations
        self._store = store
        self._fleet = fleet
        self._files = files
        self._delete = delete

    async def delete(self, op_id: str, reference: str, *, force: bool) -> Running[None]:
        """Begin to delete a VM. Raises Conflict(WRONG_STATE) for one that is not idle, unless forced."""
        vm = await self._store.vm(reference)
        if not force and vm.state not in _IDLE:
            raise Conflict(
                Reason.WRONG_STATE,
                f"VM {vm.name!r} is {vm.state.value}; only an idle VM is deleted without force",
                f"ingle vm delete --force {vm.name}",
            )

        async def work(progress: Progress) -> None:
            async with self._fleet.lock(vm.id):
                if not force:
                    await self._check_still_idle(vm.id)
                # Half a deletion can't be undone, so a cancellation that comes now comes too late.
                await pipeline.uninterrupted(self._delete_now(op_id, vm.id, progress))

        return await self._operations.begin(op_id, OperationKind.DELETE_VM, work, vm.id)

    async def _delete_now(self, op_id: str, vm_id: str, progress: Progress) -> None:
        target = VmTarget(op_id=op_id, vm_id=vm_id, paths=self._files.paths(vm_id))
        try:
            try:
                await pipeline.run([self._delete], target, self._store, progress.stage)
            except Exception as error:
                cause = pipeline.root_cause(error)
                if not isinstance(cause, HostProblem) or cause.reason is not Reason.DISK_FULL:
                    raise
                # Undoing a deletion is to go on with it: there may be room now to write it down.
                await pipeline.run([self._delete], target, self._store, progress.stage)
        finally:
            await self._fleet.detach(vm_id)  # not before its process is gone: only who still watches a child reaps it

    async def _check_still_idle(self, vm_id: str) -> None:
        vm = await self._store.vm(vm_id)
        if vm.state not in _IDLE:
            raise Conflict(Reason.WRONG_STATE, f"VM {vm.name!r} is {vm.state.value} by now", "ingle vm list")
