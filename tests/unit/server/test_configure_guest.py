"""The step of a start that tells the guest the time."""

import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentEndpoint, Configured, GuestConfiguration
from ingle.api_server.ports.engine import VmPaths
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.steps.configure_guest import ConfigureGuest
from ingle.api_server.steps.target import Start

from .vmms import IMAGE, KERNEL, VM, ScriptedVmm


class Listener:
    """Keeps what it is told: an agent, and the way to it."""

    def __init__(self, refusal: GuestError | None = None) -> None:
        self.told: list[GuestConfiguration] = []
        self.refusal = refusal
        """What is said to SSH keys."""

    def channel(self, endpoint: AgentEndpoint) -> GuestChannel:
        return cast("GuestChannel", self)

    async def configure(self, configuration: GuestConfiguration) -> Configured:
        self.told.append(configuration)
        if self.refusal is not None and configuration.ssh_keys:
            raise self.refusal
        return Configured()


def start(tmp_path: Path, *keys: str, created: bool = False) -> Start:
    vm = replace(VM, ssh_keys=keys)
    paths = VmPaths(tmp_path, tmp_path)
    return Start("op-0", VM.id, paths, vm, IMAGE, KERNEL, bytes(32), created=created, vmm=ScriptedVmm())


async def test_a_vms_ssh_keys_are_roots(tmp_path: Path) -> None:
    for keys, told in (((), {}), (("a key", "another"), {"": ("a key", "another")})):
        listener = Listener()
        await ConfigureGuest(listener).run(start(tmp_path, *keys))
        assert listener.told[0].ssh_keys == told


async def test_keys_that_the_guest_refuses_fail_a_creation_and_no_later_start(tmp_path: Path) -> None:
    refusal = GuestError(Reason.SYMLINK_REFUSED, "a link")
    with pytest.raises(GuestError, match="a link"):
        await ConfigureGuest(Listener(refusal)).run(start(tmp_path, "a key", created=True))
    listener = Listener(refusal)
    await ConfigureGuest(listener).run(start(tmp_path, "a key"))
    assert [configuration.ssh_keys for configuration in listener.told] == [{"": ("a key",)}, {}]
    assert listener.told[1].unix_nanoseconds is not None


async def test_a_guest_that_is_gone_fails_any_start(tmp_path: Path) -> None:
    gone = GuestError(Reason.GUEST_UNREACHABLE, "gone")
    with pytest.raises(GuestError, match="gone"):
        await ConfigureGuest(Listener(gone)).run(start(tmp_path, "a key"))


async def test_the_guest_is_told_the_time_as_it_is_now(tmp_path: Path) -> None:
    listener = Listener()
    before = time.time_ns()
    await ConfigureGuest(listener).run(start(tmp_path))
    (told,) = listener.told
    assert told.unix_nanoseconds is not None
    assert before <= told.unix_nanoseconds <= time.time_ns()
    assert 0 < told.clock_tolerance_seconds < 1
