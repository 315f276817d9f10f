"""Telling VMs each other's names."""

from typing import Protocol

from ingle.api_server.ports.activation import Door


class NameService(Door, Protocol):
    """Answers DNS for VMs of shared networks, and for the host. Who asks for a neighbour that is asleep wakes it."""

    async def serve(self, gateway: str) -> int:
        """Answer at the network's gateway from now on; done already is fine. Answers at which port it is.

        Raises HostProblem(PORT_REFUSED)."""
