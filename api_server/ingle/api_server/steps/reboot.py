"""Remember that a guest has rebooted until it has booted again."""

from collections.abc import Awaitable, Callable

from ingle.api_server.steps.target import Start, VmTarget


class Reboot:
    """Undone by a server that starts, it has the VM started once more: the one that was about to has ended. A start
    that fails is told instead."""

    name = "reboot"
    text = "booting again, as the guest wants"

    def __init__(self, remember: Callable[[str], Awaitable[None]]) -> None:
        self._remember = remember

    async def run(self, target: Start) -> None:
        """What follows does it."""

    async def undo(self, target: VmTarget) -> None:
        if not isinstance(target, Start):
            await self._remember(target.vm_id)
