"""A guest that hangs: who looks at its VM waits no longer than they said."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingle.api_server.adapters.guest import Dialler
from ingle.api_server.model.caller import Reference
from ingle.api_server.model.guest import AgentEndpoint, UnixAddress
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.inspect_vm import InspectVm
from ingle.api_server.operations.use_guest import UseGuest
from unit.api_server.vmms import VM, StillClock, mine


class OneVm:
    """Store, fleet, files and disks in one, of a VM whose agent takes connections and says nothing."""

    id, name, state = "web", "web", VmState.RUNNING
    settings = replace(VM.settings, disk_backend="disk")

    def __init__(self, socket: Path) -> None:
        self.agent = AgentEndpoint(UnixAddress(str(socket)))

    async def find(self, reference: Reference) -> "OneVm":
        return self

    def vmm(self, vm_id: str) -> "OneVm":
        return self

    def stalled(self, vm_id: str) -> str:
        return ""

    def moving_vmm(self, vm: object) -> "OneVm":
        return self

    def paths(self, vm_id: str) -> "OneVm":
        return self

    async def changes(self, vm_id: str, state: object) -> None:
        return None


async def test_a_guest_that_hangs_is_waited_for_as_long_as_was_asked(tmp_path: Path) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_unix_server(say_nothing, tmp_path / "agent"):
        world: Any = OneVm(tmp_path / "agent")
        guests = UseGuest(world, world, Dialler())
        health = await InspectVm(world, world, guests, world, {"disk": world}, StillClock()).health(mine("web"), 0.05)
    assert health.vmm_alive
    assert not health.agent_answers
    assert health.activity is None
    assert "did not answer within 0.05 s" in health.problem
