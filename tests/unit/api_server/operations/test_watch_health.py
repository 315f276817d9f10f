"""How much of the server the healthchecks of one owner's VMs take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from ingle.api_server.model.guest import ExecEvent, ExecSpec, Exited
from ingle.api_server.model.image_config import Healthcheck
from ingle.api_server.model.vm import Vm, VmState
from ingle.api_server.operations.watch_health import WatchHealth
from unit.api_server.vmms import VM, StillClock

CHECK = Healthcheck(("CMD", "true"), interval=1000, timeout=3_600_000, retries=1)
MANY = 100


class Guests:
    """Whose commands end when a test says so."""

    def __init__(self) -> None:
        self.asked: dict[int, int] = {}
        """How often guests were, by owner."""

        self.may_end = asyncio.Event()

    def peek(self, vm: Vm) -> Any:
        return SimpleNamespace(exec=lambda spec: self._exec(vm, spec))

    @asynccontextmanager
    async def _exec(self, vm: Vm, _: ExecSpec) -> AsyncIterator[Any]:
        self.asked[vm.owner] = self.asked.get(vm.owner, 0) + 1

        async def events() -> AsyncIterator[ExecEvent]:
            await self.may_end.wait()
            yield Exited(0)

        yield SimpleNamespace(events=events)


class Vmm:
    """Of a guest that is asked but once."""

    def __init__(self) -> None:
        self._looked = False

    async def wait_gone(self, timeout_seconds: float) -> bool:
        await asyncio.sleep(0)
        self._looked, looked = True, self._looked
        return looked


async def test_checks_of_one_owner_at_once_have_a_bound_and_are_nothing_to_others() -> None:
    settings = replace(VM.settings, healthcheck=CHECK)
    vms = {
        f"{owner}-{number}": replace(VM, id=f"{owner}-{number}", owner=owner, state=VmState.RUNNING, settings=settings)
        for owner in (1, 2)
        for number in range(MANY if owner == 1 else 1)
    }

    async def get(vm_id: str) -> Vm:
        return vms[vm_id]

    async def record(_: object) -> None:
        """An event."""

    guests = Guests()
    store, events = SimpleNamespace(get=get), SimpleNamespace(record=record)
    watch = WatchHealth(cast("Any", store), cast("Any", guests), cast("Any", events), StillClock())
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for vm_id in vms:
            group.create_task(watch.keep(vm_id, cast("Any", Vmm())))
        while 2 not in guests.asked:
            await asyncio.sleep(0.01)
        assert guests.asked[1] < MANY
        guests.may_end.set()
    assert guests.asked == {1: MANY, 2: 1}
