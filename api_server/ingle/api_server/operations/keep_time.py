"""A guest that stood still, while its host slept say, has a clock that is late, and does not know."""

import logging

from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.guest import GuestIdentity
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.ports.clock import Clock
from ingle.api_server.ports.engine import Vmm
from ingle.api_server.ports.store.vms import VmStore

log = logging.getLogger(__name__)

_TIME_SECONDS = 30.0
_CLOCK_TOLERANCE_SECONDS = 1.0


class KeepTime:
    """Tells guests the time again and again. One that somebody in the guest has set is theirs."""

    def __init__(self, vms: VmStore, guests: UseGuest, clock: Clock) -> None:
        self._vms = vms
        self._clock = clock
        self._guests = guests

    async def keep(self, vm_id: str, vmm: Vmm) -> None:
        """As long as the VMM lives."""
        while not await vmm.wait_gone(_TIME_SECONDS):
            now = GuestIdentity(
                unix_nanoseconds=self._clock.unix_nanoseconds(),
                clock_tolerance_seconds=_CLOCK_TOLERANCE_SECONDS,
                clock_unless_set_by_guest=True,
            )
            try:
                configured = await self._guests.peek(await self._vms.get(vm_id)).take_identity(now)
            except IngleError as error:  # it is busy, or ending
                log.debug("the guest was not told the time: %s", error.message, extra={"vm": vm_id})
                continue
            if configured.clock_stepped:
                log.warning("the guest's clock was set", extra={"vm": vm_id, "ahead": configured.clock_offset_seconds})
