"""Words with a running VM's agent that no call has: while its server, the only one that it talks to, is away."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TypeVar

from harness import Server
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.qemu import command
from ingle.api_server.model.guest import AgentEndpoint, SerialAddress, VsockAddress
from ingle.api_server.ports.guest import GuestChannel
from ingle.v1 import vm_pb2

_Answer = TypeVar("_Answer")


def ask_agent(server: Server, vm: vm_pb2.Vm, question: Callable[[GuestChannel], Awaitable[_Answer]]) -> _Answer:
    """Its token is in the database, its port in its directory. The server is started again."""
    token = token_of(server, vm)
    return ask_by_tokens(server, vm, lambda by: question(by(token)))


def ask_by_tokens(
    server: Server, vm: vm_pb2.Vm, question: Callable[[Callable[[bytes], GuestChannel]], Awaitable[_Answer]]
) -> _Answer:
    """The same by whatever tokens it says."""
    port = server.state / "vms" / vm.id / "agent.sock"
    address = SerialAddress(str(port)) if port.exists() else VsockAddress(command.vsock_cid(vm.id), command.AGENT_PORT)

    async def ask() -> _Answer:
        dialler = Dialler()
        try:
            return await question(lambda token: dialler.channel(AgentEndpoint(address, token)))
        finally:
            dialler.close()

    assert server.stop() == 0
    try:
        return asyncio.run(ask())
    finally:
        server.start()


def token_of(server: Server, vm: vm_pb2.Vm) -> bytes:
    """What the VM's agent wants of its callers, as the server knows it."""
    with sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True) as db:
        (token,) = db.execute("SELECT token FROM vms WHERE id = ?", (vm.id,)).fetchone()
    return bytes(token)


def set_token(server: Server, vm: vm_pb2.Vm, token: bytes) -> None:
    """Have a server know another one."""
    assert server.stop() == 0
    try:
        with sqlite3.connect(server.state / "ingle.db") as db:
            db.execute("UPDATE vms SET token = ? WHERE id = ?", (token, vm.id))
        db.close()
    finally:
        server.start()
