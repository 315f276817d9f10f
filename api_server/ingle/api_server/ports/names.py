"""Telling VMs each other's names."""

from typing import Protocol


class NameService(Protocol):
    """Answers DNS for the VMs of shared networks, and for the host."""

    async def serve(self, gateway: str) -> int:
        """Answer at the network's gateway from now on; done already is fine. Answers at which port it is.

        Raises HostProblem(PORT_REFUSED)."""
