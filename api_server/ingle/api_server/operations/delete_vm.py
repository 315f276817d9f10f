"""Delete: everything a VM owns goes, every part is tried, and a crash half-way only delays it."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ingle.api_server import pipeline
from ingle.api_server.model.caller import Reference
from ingle.api_server.model.errors import Conflict, GuestError, HostProblem, NotFound, Reason
from ingle.api_server.model.operation import OperationKind
from ingle.api_server.model.vm import Vm
from ingle.api_server.operations.fleet import Fleet
from ingle.api_server.operations.runner import Ongoing, Operations, Progress
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.delete import Delete
from ingle.api_server.steps.target import VmTarget

log = logging.getLogger(__name__)


class DeleteVm:
    """Deletes VMs."""

    def __init__(
        self,
        operations: Operations,
        vms: VmStore,
        journal: Journal,
        fleet: Fleet,
        files: VmFiles,
        delete: Delete,
    ) -> None:
        self._operations = operations
        self._journal = journal
        self._vms = vms
        self._fleet = fleet
        self._files = files
        self._delete = delete
        self.vm_gone: Callable[[str], Awaitable[None]] | None = None
        """What else to do once a VM is gone, as a part of that operation, whose id it takes."""

    async def delete(self, op_id: str, reference: Reference, *, force: bool) -> Ongoing[None]:
        """Begin to delete a VM. Raises Conflict(WRONG_STATE) for one that is not idle, unless forced."""
        vm = await self._vms.exact(reference)
        return await self._begin(op_id, reference.caller.uid, vm, force=force)

    async def delete_kept(self, op_id: str, vm_id: str) -> Ongoing[None]:
        """Begin to delete one that nobody has called for, since whoever it lived for is gone."""
        vm = await self._vms.get(vm_id)
        return await self._begin(op_id, vm.owner, vm, force=True)

    async def _begin(self, op_id: str, owner: int, vm: Vm, *, force: bool) -> Ongoing[None]:
        if not force and not vm.state.idle:
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

        return await self._operations.begin(op_id, owner, OperationKind.DELETE_VM, work, vm.id)

    @asynccontextmanager
    async def afterwards(self, op_id: str, reference: Reference) -> AsyncIterator[None]:
        """The VM goes with what is done in the context, however that ends."""
        vm = await self._vms.exact(reference)
        try:
            await self._vms.kept_by_a_call(vm.id)  # from here on: who leaves at once may be in the store already
            yield
        except GuestError as error:
            if error.reason is Reason.VM_ENDED:  # then there is nothing to start again
                raise GuestError(error.reason, error.message) from error
            raise
        finally:
            await pipeline.uninterrupted(self._delete_wholly(op_id, vm.id))

    async def _delete_wholly(self, op_id: str, vm_id: str) -> None:
        try:
            deletion = await self.delete_kept(op_id, vm_id)
            await deletion.result()
        except NotFound:
            log.info("the VM was deleted already", extra={"vm": vm_id})

    async def _delete_now(self, op_id: str, vm_id: str, progress: Progress) -> None:
        target = VmTarget(op_id=op_id, vm_id=vm_id, paths=self._files.paths(vm_id))
        try:
            try:
                await pipeline.run([self._delete], target, self._journal, progress.stage)
            except Exception as error:
                cause = pipeline.root_cause(error)
                if not isinstance(cause, HostProblem) or cause.reason is not Reason.DISK_FULL:
                    raise
                # Undoing a deletion is to go on with it: there may be room now to write it down.
                await pipeline.run([self._delete], target, self._journal, progress.stage)
        finally:
            await self._fleet.detach(vm_id)  # not before its process is gone: only who still watches a child reaps it
        if self.vm_gone is not None:
            await self.vm_gone(op_id)

    async def _check_still_idle(self, vm_id: str) -> None:
        vm = await self._vms.get(vm_id)
        if not vm.state.idle:
            raise Conflict(Reason.WRONG_STATE, f"VM {vm.name!r} is {vm.state.value} by now", "ingle vm list")
