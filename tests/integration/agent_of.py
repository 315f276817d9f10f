"""The way to a running VM's agent, past the server: its token is in the database, its port among QEMU's sockets."""

import re
import sqlite3
from contextlib import suppress
from pathlib import Path

from harness import Server
from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.adapters.qemu import command
from ingle.api_server.model.guest import AgentEndpoint, TcpAddress, VsockAddress
from ingle.api_server.ports.guest import GuestChannel
from ingle.v1 import vm_pb2

_LISTENING = "0A"


def agent_of(server: Server, vm: vm_pb2.Vm) -> GuestChannel:
    """A channel of one's own."""
    with sqlite3.connect(f"file:{server.state / 'ingle.db'}?mode=ro", uri=True) as db:
        (token,) = db.execute("SELECT token FROM vms WHERE id = ?", (vm.id,)).fetchone()
    port = _listening_port(vm.pid)
    address = (
        VsockAddress(command.vsock_cid(vm.id), command.AGENT_PORT) if port is None else TcpAddress("127.0.0.1", port)
    )
    return Dialler().channel(AgentEndpoint(address, token))


def _listening_port(pid: int) -> int | None:
    """The TCP port on which a process listens; see proc_net(5)."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            if match := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
                inodes.add(match[1])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == _LISTENING and inode in inodes:
            return int(local.rpartition(":")[2], 16)
    return None
