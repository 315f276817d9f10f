"""VMs that live for somebody: a process that made one for itself, or the call of a command that takes it along.

Whose a VM is, is in the store before anybody relies on it. So it goes with its owner, also when the server was killed
in the same instant: the next one looks who is still there.
"""

import asyncio
import logging

from ingle.api_server.model.errors import IngleError, NotFound
from ingle.api_server.model.ids import new_op_id
from ingle.api_server.model.operation import OperationState
from ingle.api_server.model.vm import Owner, Vm
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.runner import Running
from ingle.api_server.ports.processes import Processes
from ingle.api_server.ports.store import Store

log = logging.getLogger(__name__)


class Owners:
    """Watches owners, and deletes what was theirs. An owner costs the same whether it makes one VM or thousands."""

    def __init__(self, store: Store, processes: Processes, delete: DeleteVm) -> None:
        self._store = store
        self._processes = processes
        self._delete = delete
        self._watchers: dict[Owner, asyncio.Task[None]] = {}
        self._creations: dict[Owner, list[Running[Vm]]] = {}
        self._orphans: asyncio.Task[None] | None = None

    async def take_up(self) -> None:
        """Watch the owners of an earlier server's VMs; a call is one that ended with that server."""
        owned = await self._store.owners()
        for owner in {owner for _, owner in owned if owner is not None}:
            self._begin(owner)
        orphans = [vm_id for vm_id, owner in owned if owner is None]
        self._orphans = asyncio.create_task(
            self._delete_all(orphans), name="delete the VMs of an earlier server's calls"
        )

    def watch(self, creation: Running[Vm], owner: Owner) -> None:
        """The VM under creation is `owner`'s."""
        others = self._creations.get(owner, ())
        self._creations[owner] = [
            creation,
            *(other for other in others if other.operation.state is OperationState.RUNNING),
        ]
        if owner not in self._watchers:
            self._begin(owner)

    async def close(self) -> None:
        """Watch no more; the next server will."""
        watchers = [*self._watchers.values(), *([self._orphans] if self._orphans else [])]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    def _begin(self, owner: Owner) -> None:
        self._watchers[owner] = asyncio.create_task(self._watch(owner), name=f"watch-{owner}")

    async def _watch(self, owner: Owner) -> None:
        await self._processes.ended(owner)
        while True:
            for creation in self._creations.pop(owner, ()):
                await creation.cancel()
            await self._delete_all([vm_id for vm_id, whose in await self._store.owners() if whose == owner])
            if owner not in self._creations:  # else a call of its last moment came in meanwhile
                del self._watchers[owner]
                return

    async def _delete_all(self, vm_ids: list[str]) -> None:
        for vm_id in vm_ids:
            log.info("deleting a VM whose owner is gone", extra={"vm": vm_id})
            try:
                await (await self._delete.delete(new_op_id(), vm_id, force=True)).result()
            except NotFound:  # deleted by somebody else in the same moment
                continue
            except IngleError as error:  # the next server tries again
                log.error("VM %s could not be deleted: %s", vm_id, error.message)
