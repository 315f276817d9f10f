"""Tell the guest what only a running one can be told."""

import logging
import time

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import GuestConfiguration
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.steps.target import Start

log = logging.getLogger(__name__)

_CLOCK_TOLERANCE_SECONDS = 0.05
_BROKEN = frozenset({Reason.GUEST_UNREACHABLE, Reason.GUEST_PROTOCOL})


class ConfigureGuest:
    """The time, since the clock that a guest reads while it boots shows whole seconds; and who may come in. Hostname,
    network and entropy came with the boot configuration.

    SSH keys that can't be installed fail a creation. Later the guest is its owner's, who may have made of ~/.ssh what
    they like, and needs a running VM to change that."""

    name = "configure"
    text = "telling the guest the time"

    def __init__(self, dialler: GuestDialler) -> None:
        self._dialler = dialler

    async def run(self, target: Start) -> None:
        try:
            await self._tell(target, target.vm.ssh_keys)
        except GuestError as error:
            if target.created or not target.vm.ssh_keys or error.reason in _BROKEN:
                raise
            log.warning("SSH keys could not be installed", extra={"vm": target.vm_id, "error": error.message})
            await self._tell(target, ())

    async def _tell(self, target: Start, ssh_keys: tuple[str, ...]) -> None:
        channel = self._dialler.channel(target.live_vmm.agent)
        await channel.configure(
            GuestConfiguration(
                unix_nanoseconds=time.time_ns(),
                clock_tolerance_seconds=_CLOCK_TOLERANCE_SECONDS,
                ssh_keys={"": ssh_keys} if ssh_keys else {},
            )
        )
