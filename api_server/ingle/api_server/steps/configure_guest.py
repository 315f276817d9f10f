"""Tell the guest what only a running one can be told."""

import time

from ingle.api_server.model.guest import GuestConfiguration
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.steps.target import Start

_CLOCK_TOLERANCE_SECONDS = 0.05


class ConfigureGuest:
    """The time, since the clock that a guest reads while it boots shows whole seconds; and who may come in. Hostname,
    network and entropy came with the boot configuration."""

    name = "configure"
    text = "telling the guest the time"

    def __init__(self, dialler: GuestDialler) -> None:
        self._dialler = dialler

    async def run(self, target: Start) -> None:
        channel = self._dialler.channel(target.live_vmm.agent)
        await channel.configure(
            GuestConfiguration(
                unix_nanoseconds=time.time_ns(),
                clock_tolerance_seconds=_CLOCK_TOLERANCE_SECONDS,
                ssh_keys={"": target.vm.ssh_keys} if target.vm.ssh_keys else {},
            )
        )
