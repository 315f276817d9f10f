"""Say in the store what the VM is to be."""

import logging
from collections.abc import Mapping

from ingle.api_server.model.errors import IngleError
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.store.journal import Journal
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.steps.target import Change, VmTarget

log = logging.getLogger(__name__)


class ChangeSettings:
    """All of a change at once. It may still be refused, so it goes first: then no disk has grown.

    A failure makes it what it was. A server that was killed has told nobody of one: the next goes on with the change,
    for the disk may have grown, and that can't be taken back; where it can't go on either, the VM is what it was."""

    name = "change-settings"
    text = "recording the change"

    def __init__(self, vms: VmStore, journal: Journal, backends: Mapping[str, DiskBackend]) -> None:
        self._vms = vms
        self._journal = journal
        self._backends = backends

    async def run(self, target: Change) -> None:
        await self._vms.change(target.after, target.op_id)

    async def undo(self, target: VmTarget) -> None:
        if isinstance(target, Change) or not await self._finished(target):
            await self._vms.restore(target.vm_id, target.op_id)

    async def _finished(self, target: VmTarget) -> bool:
        """The network is as the store says once the server is up, and a guest learns its name when it boots."""
        vm = await self._vms.changed(target.vm_id)
        if vm is None:
            return False
        try:
            if vm.state.idle:  # else its disk is in use, and as large as it was
                await self._backends[vm.settings.disk_backend].grow(target.paths.state, vm.settings.disk_bytes)
        except IngleError as error:
            log.warning("a change can't be completed: %s", error.message, extra={"vm": vm.id})
            return False
        await self._journal.close(target.op_id, target.resource)
        return True
