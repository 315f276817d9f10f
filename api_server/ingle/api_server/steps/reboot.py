"""A guest has rebooted, and has not booted again yet."""

from collections.abc import Awaitable, Callable

from ingle.api_server.steps.target import VmTarget


class Reboot:
    """Journalled by who sees it. Undone by a server that starts, it has the VM started: the one that was about to has
    ended."""

    name = "reboot"
    text = "booting again, as the guest wants"

    def __init__(self, remember: Callable[[str], Awaitable[None]]) -> None:
        self._remember = remember

    async def run(self, target: VmTarget) -> None:
        """The guest has done it."""

    async def undo(self, target: VmTarget) -> None:
        await self._remember(target.vm_id)
