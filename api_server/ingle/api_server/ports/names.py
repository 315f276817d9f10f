"""Telling VMs each other's names."""

from collections.abc import Awaitable, Callable
from typing import Protocol


class NameService(Protocol):
    """Answers DNS for the VMs of shared networks, and for the host."""

    waken: Callable[[str], Awaitable[object]]
    """Called with the id of a VM that is asleep when a VM of its network asks for it. Set by who wakes."""

    async def serve(self, gateway: str) -> int:
        """Answer at the network's gateway from now on; done already is fine. Answers at which port it is.

        Raises HostProblem(PORT_REFUSED)."""
