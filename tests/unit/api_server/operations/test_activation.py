"""VMs that somebody knocks at while they sleep."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from ingle.api_server.adapters.activation import LocalActivationSockets
from ingle.api_server.model.errors import HostProblem, Reason
from ingle.api_server.model.vm import VmState
from ingle.api_server.operations.activation import Activation
from ingle.api_server.operations.wake_vm import WakeVm
from unit.api_server.vmms import VM, StillClock, World, world


class Waking:
    """Wakes, or says why it does not."""

    def __init__(self) -> None:
        self.tries = 0
        self.problem: HostProblem | None = None

    async def waken(self, _vm_id: str) -> None:
        self.tries += 1
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, VmState.PAUSED) as at:
        yield at


def activation_of(at: World, waking: Waking, clock: StillClock) -> Activation:
    doors = (at.names, at.network)
    return Activation(at.store.vms, at.fleet, LocalActivationSockets(), cast("WakeVm", waking), clock, doors)


async def test_one_that_cannot_wake_is_tried_less_and_less_often_however_many_knock(at: World) -> None:
    waking, clock = Waking(), StillClock()
    activation = activation_of(at, waking, clock)
    waking.problem = HostProblem(Reason.DISK_FULL, "no room", "df -h")
    tried = []
    for _ in range(1000):
        assert set(await asyncio.gather(*(activation.awake(VM.id) for _ in range(3)))) == {None}
        tried.append(waking.tries)
        clock.seconds += 1.0
    assert tried[-1] <= 3 * 20
    waking.problem = None
    clock.seconds += 1000
    assert await activation.awake(VM.id)
    before = waking.tries
    assert await activation.awake(VM.id)
    assert waking.tries == before + 1, "it woke: nothing is held against it any more"


async def test_a_neighbour_who_asks_for_its_name_wakes_one(at: World) -> None:
    waking = Waking()
    activation = activation_of(at, waking, StillClock())
    await activation.take_up()
    await at.names.waken(VM.id)
    assert waking.tries == 1
    await activation.close()
