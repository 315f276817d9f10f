"""A server of its own process whose every VM is the agent at a socket: the guest calls, and nothing else.

python -m contract.one_vm AGENT_SOCKET API_SOCKET
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.gate import Callers, open_gate
from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.errors import NotFound, Reason
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.model.vm import VmState
from ingle.api_server.model.workload import Workload
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.rpc import interceptors, who
from ingle.api_server.rpc.guest import GuestServicer
from ingle.v1 import guest_pb2_grpc

_ME = (Caller(0, admin=True), 1)
"""Whoever calls, as rpc.who knows callers, where there is no gate."""


class OneVm:
    """Store, VMM and VM in one: whatever is asked for, it runs, and its guest is the agent at `agent_socket`. Where
    `names` are given, it has those alone."""

    id = name = "web"
    state = VmState.RUNNING
    settings = SimpleNamespace(workload=Workload())

    def __init__(self, agent_socket: str, names: Collection[str] = ()) -> None:
        self.agent = AgentEndpoint(UnixAddress(agent_socket))
        self._names = names

    @property
    def guests(self) -> UseGuest:
        """The way into its guest."""
        world: Any = self
        return UseGuest(world, world, Dialler())

    async def exact(self, reference: Reference) -> "OneVm":
        if self._names and reference.text not in self._names:
            raise NotFound(Reason.VM_NOT_FOUND, f"no VM is called {reference.text!r}", "ingle vm list")
        return self

    find = exact

    async def get(self, vm_id: str) -> "OneVm":
        return self

    def moving_vmm(self, vm: object) -> "OneVm":
        return self

    async def wait_gone(self, timeout_seconds: float | None = None) -> bool:
        return False


def new_server(one: OneVm, interceptor: interceptors.CallInterceptor | None = None) -> grpc.aio.Server:
    """Not started yet, and without a port."""
    never: Any = None  # deletes VMs
    server = grpc.aio.server(interceptors=(interceptor or interceptors.CallInterceptor(),))
    guest_pb2_grpc.add_GuestServiceServicer_to_server(GuestServicer(one.guests, never), server)
    return server


@asynccontextmanager
async def behind_a_gate(server: grpc.aio.Server, directory: Path) -> AsyncIterator[str]:
    """The server takes calls, and is told who makes them: the address."""
    public, upstream = directory / "api.sock", directory / "grpc.sock"
    server.add_insecure_port(f"unix:{upstream}")
    await server.start()
    gate = await open_gate(public, upstream, Callers(os.getuid()))
    try:
        yield f"unix:{public}"
    finally:
        gate.close()
        gate.hang_up()
        await server.stop(None)


async def _serve() -> None:
    vars(who)["identity_of"] = lambda peer: _ME  # there is no gate before this server
    agent_socket, api_socket = sys.argv[1:]
    server = new_server(OneVm(agent_socket))
    server.add_insecure_port(f"unix:{api_socket}")
    await server.start()
    print("ready", flush=True)  # noqa: T201 - who started it waits for this
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
