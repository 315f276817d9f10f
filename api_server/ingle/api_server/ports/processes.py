"""Other processes of this host: those that callers are."""

from typing import Protocol

from ingle.api_server.model.vm import Keeper


class Processes(Protocol):
    """What can be known of them."""

    async def ended(self, keeper: Keeper) -> None:
        """Return when that process is no more; at once when it is gone already."""
