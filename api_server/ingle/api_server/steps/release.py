"""What a VM that does not run any more must not keep: its sockets and secrets, and its place in the network."""

import logging

from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.files import VmFiles
from ingle.api_server.ports.network import HostNetwork

log = logging.getLogger(__name__)


class Release:
    """For when its VMM is gone."""

    def __init__(self, files: VmFiles, network: HostNetwork) -> None:
        self._files = files
        self._network = network

    async def of(self, vm: Vm) -> None:
        """Let go of everything. A helper that does not answer keeps no VM from being stopped: what it could not take
        away is in the way of nobody but this VM, whose next start takes it over, as does the next server."""
        await self._files.remove_runtime(self._files.paths(vm.id))
        if vm.slot is not None:
            try:
                await self._network.disconnect(vm.slot, vm.id)
            except IngleError as error:
                log.error("the network could not be released", extra={"vm": vm.id, "error": error.message})
