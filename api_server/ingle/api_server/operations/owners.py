"""VMs that live for somebody: a process that made one for itself, or the call of a command that takes it along.

Whose a VM is, is in the store before anybody relies on it. So it goes with its owner, also when the server was killed
in the same instant: the next one looks who is still there.
"""

import asyncio
import logging
from collections.abc import Coroutine

from ingle.api_server.model.errors import IngleError, NotFound
from ingle.api_server.model.ids import new_op_id
from ingle.api_server.model.vm import Owner, Vm
from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.runner import Running
from ingle.api_server.ports.processes import Processes
from ingle.api_server.ports.store import Store

log = logging.getLogger(__name__)


class Owners:
    """Watches owners, and deletes what was theirs."""

    def __init__(self, store: Store, processes: Processes, delete: DeleteVm) -> None:
        self._store = store
        self._processes = processes
        self._delete = delete
        self._watchers: set[asyncio.Task[None]] = set()

    async def take_up(self) -> None:
        """Watch the owners of an earlier server's VMs; a call is one that ended with that server."""
        for vm_id, owner in await self._store.owners():
            self._begin(self._watch(vm_id, owner, None))

    def watch(self, creation: Running[Vm], owner: Owner) -> None:
        """The VM under creation is `owner`'s."""
        self._begin(self._watch(creation.operation.target_id, owner, creation))

    async def close(self) -> None:
        """Watch no more; the next server will."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    def _begin(self, watch: Coroutine[None, None, None]) -> None:
        watcher = asyncio.create_task(watch)
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _watch(self, vm_id: str, owner: Owner | None, creation: Running[Vm] | None) -> None:
        if owner is not None:
            await self._processes.ended(owner)
        if creation is not None:
            await creation.cancel()
        try:
            deletion = await self._delete.delete(new_op_id(), vm_id, force=True)
            log.info("deleting the VM of an owner that is gone", extra={"vm": vm_id, "pid": owner and owner.pid})
            await deletion.result()
        except NotFound:  # as a rule: it was deleted by its owner
            return
        except IngleError as error:  # the next server tries again
            log.error("VM %s could not be deleted: %s", vm_id, error.message)
