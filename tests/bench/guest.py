"""The way to a VM's agent that leads past the server."""

import asyncio

from bench.raw import RawGuest
from harness import Server
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.sqlite import SqliteStore
from ingle.api_server.model.guest import AgentEndpoint, TcpAddress
from ingle.api_server.ports.guest import GuestChannel
from ingle.v1 import vm_pb2


def agent_of(server: Server, vm: vm_pb2.Vm) -> GuestChannel:
    """The VM's agent."""

    async def token() -> bytes:
        async with SqliteStore(server.state / "ingle.db") as store:
            return await store.vm_token(vm.id)

    port = RawGuest.forwarded_port(vm.pid)
    return Dialler().channel(AgentEndpoint(TcpAddress("127.0.0.1", port), asyncio.run(token())))
