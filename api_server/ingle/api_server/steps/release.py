"""What a VM that does not run any more must not keep: its sockets and secrets, its place in the network, its disk's
device."""

import logging
from collections.abc import Awaitable, Mapping

from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.network import HostNetwork
from ingle.api_server.ports.vm_files import VmFiles

log = logging.getLogger(__name__)


class Release:
    """For when its VMM is gone."""

    def __init__(self, files: VmFiles, network: HostNetwork, backends: Mapping[str, DiskBackend]) -> None:
        self._files = files
        self._network = network
        self._backends = backends

    async def of(self, vm: Vm) -> None:
        """Let go of everything. A helper that does not answer keeps no VM from being stopped: what it could not take
        away is in the way of nobody but this VM, whose next start takes it over, as does the next server."""
        await self._files.remove_runtime(self._files.paths(vm.id))
        if vm.slot is not None:
            await _attempt(vm, "network", self._network.disconnect(vm.slot, vm.id))
        await _attempt(vm, "disk", self._backends[vm.settings.disk_backend].detach(vm.id))


async def _attempt(vm: Vm, what: str, release: Awaitable[None]) -> None:
    try:
        await release
    except IngleError as error:
        log.error("the %s could not be released", what, extra={"vm": vm.id, "error": error.message})
