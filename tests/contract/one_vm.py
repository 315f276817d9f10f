"""A server of its own process whose every VM is the agent at a socket: the guest calls, and nothing else.

python -m contract.one_vm AGENT_SOCKET API_SOCKET
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.rpc import interceptors
from ingle.api_server.rpc.guest import GuestServicer
from ingle.v1 import guest_pb2_grpc


class OneVm:
    """Store and fleet in one: whatever is asked for, it is the agent at `endpoint`."""

    def __init__(self, endpoint: AgentEndpoint) -> None:
        self._endpoint = endpoint

    async def vm(self, reference: str) -> str:
        return reference

    find_vm = vm

    def channel(self, vm: object) -> GuestChannel:
        return Dialler().channel(self._endpoint)

    @asynccontextmanager
    async def conversation(self, vm: object) -> AsyncIterator[GuestChannel]:
        yield self.channel(vm)

    async def check_killed(self, vm: object) -> None:
        """No VM ends here."""


def new_server(
    agent_socket: str, api_socket: str, interceptor: interceptors.CallInterceptor | None = None
) -> grpc.aio.Server:
    """Not started yet."""
    world: Any = OneVm(AgentEndpoint(UnixAddress(agent_socket)))
    server = grpc.aio.server(interceptors=(interceptor or interceptors.CallInterceptor(),))
    guest_pb2_grpc.add_GuestServiceServicer_to_server(GuestServicer(world, world, world), server)
    server.add_insecure_port(f"unix:{api_socket}")
    return server


async def _serve() -> None:
    vars(interceptors)["PEER_PREFIX"] = "unix:"  # there is no gate before this server
    agent_socket, api_socket = sys.argv[1:]
    server = new_server(agent_socket, api_socket)
    await server.start()
    print("ready", flush=True)  # noqa: T201 - who started it waits for this
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
