"""The server's GuestService as a process of its own, with one VM whose guest is an agent on a unix socket.

`python guest_server.py AGENT_SOCKET API_SOCKET`; it says "ready" and serves until it is killed. What is
stood in for is the knowledge of VMs; calls, frames and what lies between are the real ones."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import grpc

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.rpc.guest import GuestServicer
from ingle.v1 import guest_pb2_grpc


class OneVm:
    """A store and a fleet of it."""

    def __init__(self, agent: str) -> None:
        self._channel = Dialler().channel(AgentEndpoint(UnixAddress(agent)))

    async def vm(self, reference: str) -> SimpleNamespace:
        return SimpleNamespace(id=reference)

    find_vm = vm

    @asynccontextmanager
    async def conversation(self, _vm: object) -> AsyncIterator[GuestChannel]:
        yield self._channel


async def serve(agent: str, address: str) -> None:
    vm = OneVm(agent)
    server = grpc.aio.server()
    servicer = GuestServicer(vm, vm, None)  # type: ignore[arg-type] # as much of them as an exec needs
    guest_pb2_grpc.add_GuestServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{address}")
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
