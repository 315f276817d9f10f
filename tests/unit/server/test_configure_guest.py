"""The step of a start that tells the guest the time."""

import time
from dataclasses import replace
from pathlib import Path
from typing import cast

from ingle.api_server.model.guest import AgentEndpoint, Configured, GuestConfiguration
from ingle.api_server.ports.engine import VmPaths
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.steps.configure_guest import ConfigureGuest
from ingle.api_server.steps.target import Start

from .vmms import IMAGE, KERNEL, VM, ScriptedVmm


class Listener:
    """Keeps what it is told: an agent, and the way to it."""

    def __init__(self) -> None:
        self.told: list[GuestConfiguration] = []

    def channel(self, endpoint: AgentEndpoint) -> GuestChannel:
        return cast("GuestChannel", self)

    async def configure(self, configuration: GuestConfiguration) -> Configured:
        self.told.append(configuration)
        return Configured()


async def test_a_vms_ssh_keys_are_roots(tmp_path: Path) -> None:
    for keys, told in (((), {}), (("a key", "another"), {"": ("a key", "another")})):
        listener = Listener()
        vm = replace(VM, ssh_keys=keys)
        target = Start("op-0", VM.id, VmPaths(tmp_path, tmp_path), vm, IMAGE, KERNEL, bytes(32), vmm=ScriptedVmm())
        await ConfigureGuest(listener).run(target)
        assert listener.told[0].ssh_keys == told


async def test_the_guest_is_told_the_time_as_it_is_now(tmp_path: Path) -> None:
    listener = Listener()
    paths = VmPaths(tmp_path, tmp_path)
    target = Start("op-0", VM.id, paths, VM, IMAGE, KERNEL, bytes(32), vmm=ScriptedVmm())
    before = time.time_ns()
    await ConfigureGuest(listener).run(target)
    (told,) = listener.told
    assert told.unix_nanoseconds is not None
    assert before <= told.unix_nanoseconds <= time.time_ns()
    assert 0 < told.clock_tolerance_seconds < 1
