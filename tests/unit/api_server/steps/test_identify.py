"""The step of a start that tells the guest who it is."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentEndpoint, GuestIdentity, HookResult, IdentityTaken, UnixAddress
from ingle.api_server.ports.disk import BootConfig
from ingle.api_server.ports.engine import Engine, VmPaths
from ingle.api_server.ports.guest import GuestChannel
from ingle.api_server.steps.identify import Identify
from ingle.api_server.steps.target import Start
from unit.api_server.vmms import IMAGE, KERNEL, VM, ScriptedVmm, StillClock

NEW, FORMER = b"n" * 32, b"f" * 32
IDENTITY = GuestIdentity(token=NEW, hostname="hearth", env={"A": "1"}, entropy=b"e")


class Engines:
    """One that knows who its guests are."""

    def boot_config(self, *_: object) -> BootConfig:
        return BootConfig(IDENTITY)


@dataclass
class Guest:
    """Keeps what it is told, and by which token: an agent, and the way to it."""

    refusal: GuestError | None = None
    """What is said to SSH keys."""
    answers: Callable[[], None] = lambda: None
    """What happens meanwhile."""
    hook: HookResult | None = None
    told: list[GuestIdentity] = field(default_factory=list)
    asked: list[object] = field(default_factory=list)

    def channel(self, endpoint: AgentEndpoint) -> GuestChannel:
        return cast("GuestChannel", Channel(self, endpoint.token))


@dataclass
class Channel:
    """One of its connections."""

    guest: Guest
    token: bytes

    async def take_identity(self, identity: GuestIdentity, timeout_seconds: float = 10.0) -> IdentityTaken:
        self.guest.told.append(identity)
        self.guest.asked.append(self.token)
        self.guest.answers()
        if self.guest.refusal is not None and any(identity.ssh_keys.values()):
            raise self.guest.refusal
        return IdentityTaken()

    async def thaw(self, *, forked: bool) -> HookResult | None:
        self.guest.asked.append(forked)
        return self.guest.hook


class RunningClock(StillClock):
    """Its wall clock is no stiller than the other one."""

    def unix_nanoseconds(self) -> int:
        return int(self.seconds * 1e9)


def start(tmp_path: Path, *keys: str, **fields: Any) -> Start:
    vm = replace(VM, settings=replace(VM.settings, ssh_keys=keys))
    vmm = ScriptedVmm()
    vmm.agent = AgentEndpoint(UnixAddress("agent.sock"), NEW)
    return Start("op-0", VM.id, VmPaths(tmp_path, tmp_path), vm, IMAGE, KERNEL, NEW, vmm=vmm, **fields)


def identify(guest: Guest, clock: StillClock | None = None) -> Identify:
    return Identify(guest, clock or StillClock(), {VM.settings.engine: cast("Engine", Engines())})


async def test_a_vms_ssh_keys_are_roots(tmp_path: Path) -> None:
    for keys, told in (((), {}), (("a key", "another"), {"": ("a key", "another")})):
        guest = Guest()
        await identify(guest).run(start(tmp_path, *keys))
        assert guest.told[0].ssh_keys == told


async def test_keys_that_the_guest_refuses_fail_a_creation_and_no_later_start(tmp_path: Path) -> None:
    refusal = GuestError(Reason.SYMLINK_REFUSED, "a link")
    with pytest.raises(GuestError, match="a link"):
        await identify(Guest(refusal)).run(start(tmp_path, "a key", created=True))
    guest = Guest(refusal)
    await identify(guest).run(start(tmp_path, "a key"))
    assert [identity.ssh_keys for identity in guest.told] == [{"": ("a key",)}, {}]
    assert guest.told[1].unix_nanoseconds is not None


async def test_a_guest_that_is_gone_fails_any_start(tmp_path: Path) -> None:
    gone = GuestError(Reason.GUEST_UNREACHABLE, "gone")
    with pytest.raises(GuestError, match="gone"):
        await identify(Guest(gone)).run(start(tmp_path, "a key"))


async def test_one_that_has_booted_is_told_the_time_as_it_is_now_and_nothing_that_it_knows(tmp_path: Path) -> None:
    guest, clock = Guest(), StillClock()
    clock.seconds = 3600.0
    await identify(guest, clock).run(start(tmp_path))
    (told,) = guest.told
    assert 0 < told.clock_tolerance_seconds < 0.05
    assert told == GuestIdentity(
        unix_nanoseconds=clock.unix_nanoseconds(), clock_tolerance_seconds=told.clock_tolerance_seconds
    )
    assert guest.asked == [NEW]


async def test_the_time_is_told_again_when_it_was_long_on_its_way(tmp_path: Path) -> None:
    clock, late = RunningClock(), [0.5, 0.3, 0.01]

    def wait() -> None:
        clock.seconds += late.pop(0)

    guest = Guest(answers=wait)
    await identify(guest, clock).run(start(tmp_path, "a key"))
    assert not late
    assert len({told.unix_nanoseconds for told in guest.told}) == 3
    assert [told.ssh_keys for told in guest.told] == [{"": ("a key",)}, {}, {}]


async def test_a_guest_that_is_always_slow_is_not_told_for_ever(tmp_path: Path) -> None:
    clock = StillClock()

    def wait() -> None:
        clock.seconds += 1

    guest = Guest(answers=wait)
    await identify(guest, clock).run(start(tmp_path))
    assert 1 < len(guest.told) < 10


@pytest.mark.parametrize("created", [False, True])
async def test_one_that_goes_on_takes_a_whole_identity_by_its_former_token_and_only_then_goes_on(
    tmp_path: Path, created: bool
) -> None:
    guest, clock = Guest(hook=HookResult(1, output="no")), StillClock()
    target = start(tmp_path, memory=tmp_path, memory_token=FORMER, created=created)
    await identify(guest, clock).run(target)
    whole, part = guest.told
    assert whole == replace(
        IDENTITY, announce=True, unix_nanoseconds=clock.unix_nanoseconds(), disk_bytes=VM.settings.disk_bytes
    )
    assert (part.token, part.ssh_keys) == (b"", {"": ()})  # the keys of whoever it was before go
    assert guest.asked == [FORMER, NEW, created]
