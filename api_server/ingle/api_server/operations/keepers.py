"""VMs that live for somebody: a process that made one for itself, or the call of a command that takes it along.

Who keeps a VM, is in the store before anybody relies on it. So it goes with its keeper, also when the server was killed
in the same instant: the next one looks who is still there.
"""

import asyncio
import logging

from ingle.api_server.model.errors import IngleError, NotFound
from ingle.api_server.model.ids import new_op_id
from ingle.api_server.model.operation import OperationState
from ingle.api_server.model.vm import Keeper, Vm
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.runner import Ongoing
from ingle.api_server.ports.processes import Processes
from ingle.api_server.ports.store.vms import VmStore

log = logging.getLogger(__name__)


class Keepers:
    """Watches keepers, and deletes what was theirs. A keeper costs the same whether it makes one VM or thousands."""

    def __init__(self, vms: VmStore, processes: Processes, delete: DeleteVm) -> None:
        self._vms = vms
        self._processes = processes
        self._delete = delete
        self._watchers: dict[Keeper, asyncio.Task[None]] = {}
        self._creations: dict[Keeper, list[Ongoing[Vm]]] = {}
        self._orphans: asyncio.Task[None] | None = None

    async def take_up(self) -> None:
        """Watch the keepers of an earlier server's VMs; a call is one that ended with that server."""
        kept = await self._vms.keepers()
        for keeper in {keeper for _, keeper in kept if keeper is not None}:
            self._begin(keeper)
        orphans = [vm_id for vm_id, keeper in kept if keeper is None]
        self._orphans = asyncio.create_task(
            self._delete_all(orphans), name="delete the VMs of an earlier server's calls"
        )

    def watch(self, creation: Ongoing[Vm], keeper: Keeper) -> None:
        """The VM under creation is `keeper`'s."""
        others = self._creations.get(keeper, ())
        self._creations[keeper] = [
            creation,
            *(other for other in others if other.operation.state is OperationState.RUNNING),
        ]
        if keeper not in self._watchers:
            self._begin(keeper)

    async def close(self) -> None:
        """Watch no more; the next server will."""
        watchers = [*self._watchers.values(), *([self._orphans] if self._orphans else [])]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    def _begin(self, keeper: Keeper) -> None:
        self._watchers[keeper] = asyncio.create_task(self._watch(keeper), name=f"watch-{keeper}")

    async def _watch(self, keeper: Keeper) -> None:
        await self._processes.ended(keeper)
        while True:
            for creation in self._creations.pop(keeper, ()):
                await creation.cancel()
            await self._delete_all([vm_id for vm_id, whose in await self._vms.keepers() if whose == keeper])
            if keeper not in self._creations:  # else a call of its last moment came in meanwhile
                del self._watchers[keeper]
                return

    async def _delete_all(self, vm_ids: list[str]) -> None:
        for vm_id in vm_ids:
            log.info("deleting a VM whose keeper is gone", extra={"vm": vm_id})
            try:
                await (await self._delete.delete_kept(new_op_id(), vm_id)).result()
            except NotFound:  # deleted by somebody else in the same moment
                continue
            except IngleError as error:  # the next server tries again
                log.error("VM %s could not be deleted: %s", vm_id, error.message)
